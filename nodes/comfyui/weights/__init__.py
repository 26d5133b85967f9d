"""Deltas on a MODEL: its UNet described, patches made, files written."""
