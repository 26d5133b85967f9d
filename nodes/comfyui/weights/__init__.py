"""Deltas on a MODEL: its UNet's layout, patches made, files written."""
