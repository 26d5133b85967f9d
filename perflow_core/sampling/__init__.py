"""Sampling along a piecewise straight trajectory: windows, noise levels, solvers, and the relatives of PeRFlow."""
