"""Training a PeRFlow of one's own: diffusers and accelerate around `perflow_core.training.reflow`.

`loop` ties it together. `config` is what the user wrote, `teacher` the base model, `student` what learns. Data flows
`pictures` -> `latents` -> `endpoints` -> `loop`, with `draws` for every random number. What comes out:
`state` to go on from, `saving` for deltas, `preview` for pictures and the error to the teacher.
"""
