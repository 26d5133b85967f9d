"""PeRFlow in pure torch and numpy: windows, their chord, parameterizations, schedules, solvers, weight differences.

Data flows one way. Sampling: `windows` -> `chord` -> `parameterization`, `schedule`, `alignment`, `solvers`.
The family: `rectified` (InstaFlow, 2-Rectified-Flow, Rectified Diffusion), `great_circle` (noise between noises),
`phased` -> `pcm_loras` (PCM).
Several views: `twelve_views`, `object_picture`, and `wonder3d_file` to read (Wonder3D).
Training: `reflow`, on `chord` and `parameterization`; `curriculum`, what is taught when.
Weights, to read: `weights_file` -> `delta_file` -> `delta_changes` -> `delta_fit`, on `unet_layout`; to make: `lowrank`
-> `extraction` -> `lora_file`, `safetensors_writer`.
Pictures of numbers: `schedule_drawing`, `loss_drawing`, `views_sheet`. `errors`: what can be wrong.
Nothing here imports ComfyUI.
"""
