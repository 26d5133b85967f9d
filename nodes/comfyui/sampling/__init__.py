"""MODELs that sample along a straight trajectory, and the wrapper that aligns the steps."""
