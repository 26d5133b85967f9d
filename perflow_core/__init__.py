"""PeRFlow and its family in pure torch and numpy; nothing here imports ComfyUI.

`sampling`: time windows, the chord through their edges, what the UNet's output means, schedules and solvers; with
    InstaFlow, Rectified Diffusion and PCM.
`weights`: files of deltas and LoRAs, read and fitted to a model, extracted and written.
`training`: the teacher's trajectory in a window, the student's target, which comes when, and a step of the optimizer.
`editing`: Prompt-to-Prompt. `views`: Wonder3D's twelve views. `drawing`: plots and sheets of pictures.

Imports go one way: `training`, `weights`, `editing`, `drawing` use `sampling`; `views` `weights`; `drawing` `views`.
`errors`: what can be wrong and how it is said; `atomic_file`: files whole or not at all; `host`: float64 on the CPU.
"""
