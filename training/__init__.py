"""Training a PeRFlow of one's own: diffusers, accelerate and files around `perflow_core.training.reflow`.

`run` ties it together. `config` is what the user wrote, `plan` makes the method of it, `teacher` is the base model,
`student` the model that is trained. Data flows `pictures` -> `latents` -> `segment_cache` -> `run`. Results: `state` to
continue from, `saving` for deltas, `preview` for pictures and the error to the teacher.
"""
