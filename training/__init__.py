"""Training a PeRFlow of one's own: diffusers, accelerate and files around `perflow_core.training.reflow`.

`config` is what the user wrote, `plan` makes the method of it, `teacher` is the base model
(`unet_teacher`, `flow_teacher`), `student` what is trained, from nothing or a `starting_delta`; `needs` says beforehand
whether it fits. Pictures have one size or those of `buckets`.
Data flows `pictures` -> `latents` -> `segment_cache` -> `run`; `made_with` finds what of it no longer fits. Results:
`state` to go on from, `saving`, `preview`.
"""
