"""A classic ControlNet gets the same timestep as the UNet: 1000, not 999."""

import torch

STEPS = [1000.0, 875.0, 750.0, 500.0, 250.0]


def test_controlnet_receives_the_timesteps(controlnet, small_unet, apply_delta, schedule):
    import comfy.sample
    import comfy.samplers
    from analytic_model import conditioning

    controlled, timesteps = controlnet
    positive, negative = controlled(1.0)
    model = apply_delta(small_unet)
    noise, empty = torch.randn(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)

    def sample(positive, negative):
        euler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(
            model, noise, 2.0, euler, schedule(model, 5), positive, negative, empty, disable_pbar=True
        )

    picture = sample(positive, negative)
    assert sorted(set(timesteps), reverse=True) == STEPS
    assert not torch.allclose(picture, sample(conditioning(0.1), conditioning(0.2)))
