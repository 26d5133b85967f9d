"""PeRFlow in pure torch and numpy: windows, their chord, parameterizations, schedules, solvers, weight differences.

Data flows one way: `windows` -> `chord` -> `parameterization`, `schedule`, `alignment`, `solvers`; `delta` stands
alone.
Nothing here imports ComfyUI.
"""
