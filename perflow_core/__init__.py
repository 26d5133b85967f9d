"""PeRFlow in pure torch and numpy: windows, their chord, parameterizations, schedules, solvers, weight differences.

Data flows one way. Sampling: `windows` -> `chord` -> `parameterization`, `schedule`, `alignment`, `solvers`.
The family: `rectified` (InstaFlow, 2-Rectified-Flow, Rectified Diffusion), `great_circle` (noise between noises),
`phased` -> `pcm_loras` (PCM).
Several views: `twelve_views`, `object_picture`, and `wonder3d_file` to read (Wonder3D).
Training: `reflow`, on `chord` and `parameterization`; `curriculum`, what is taught when.
Weights: `architecture` -> `weights_file` -> `delta`, to read; `lowrank` -> `extraction` -> `safe_write`, to make.
Nothing here imports ComfyUI.
"""
