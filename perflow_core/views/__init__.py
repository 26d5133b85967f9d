"""Twelve views of one object by Wonder3D."""
