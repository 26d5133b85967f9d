"""PeRFlow in pure torch and numpy: windows, their chord, parameterizations, schedules, solvers, weight differences.

Data flows one way. Sampling: `windows` -> `chord` -> `parameterization`, `schedule`, `alignment`, `solvers`.
The family: `rectified` (InstaFlow, 2-Rectified-Flow, Rectified Diffusion), `great_circle` (noise between noises),
`phased` -> `pcm_loras` (PCM).
Several views: `twelve_views`, `object_picture`, and `wonder3d_file` to read (Wonder3D).
Training: `reflow`, on `time_points`, `trajectory` and `descent`; `curriculum`, what comes when.
Weights, to read: `architecture` -> `weights_file`, `delta_kind`, `delta_metadata` -> `delta` -> `delta_match`,
`magnitudes`; to make: `lowrank` -> `extraction` -> `safe_write`.
Pictures of numbers: `schedule_drawing`, `loss_drawing`, `views_sheet`. `errors`: what can be wrong.
Nothing here imports ComfyUI.
"""
