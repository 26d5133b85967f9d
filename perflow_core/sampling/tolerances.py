"""How near counts as the same: every tolerance of sampling, and why it is as large as it is."""

# In timesteps, of 1000.
EDGE = 0.1  # around a window edge: PeRFlow's scheduler looks for the window of t - 1e-4
WHOLE = 1e-3  # around a whole timestep: the inverse of sigma(T) in float32 is off by up to 1.7e-4 (K = 1..10)
GRID = 2e-3  # between a timestep and its place on a grid: what a list of sigmas in float32 leaves of it
CUT = 1.0  # the same in a window where the list itself starts or ends: its grid, cut to whole timesteps, differs by one
NEAR_EDGE = 5.0  # beside an edge: ComfyUI's schedulers miss one by up to 2 (752 for 750), and shorter steps are wasted

# Relative, of noise levels.
SAME_LEVEL = 1e-5  # one level in two lists: other schedulers' float32 is off by up to 1e-6
AROUND_CALL = 1e-4  # a step's level and that of a model call in it: float32 noise of what samplers compute
SAME_TABLE = 1e-3  # two noise tables: float32 betas move a level by 1e-6, the next table of another kind by 0.5

# Of the sine of an angle.
PARALLEL = 1e-6  # two directions: below it the great circle and the straight line are the same to float32
