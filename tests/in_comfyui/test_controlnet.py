"""A classic ControlNet is told the same timestep as the UNet: 1000, not 999."""

import torch

STEPS = [1000.0, 875.0, 750.0, 500.0, 250.0]


def test_controlnet_receives_the_timesteps(controlnet, run, small_unet, apply_delta, schedule):
    import comfy.sample
    import comfy.samplers
    from analytic_model import conditioning

    control, told = controlnet
    positive, negative = run(
        "ControlNetApplyAdvanced",
        positive=conditioning(0.1),
        negative=conditioning(0.2),
        control_net=control,
        image=torch.rand(1, 64, 64, 3),
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    model = apply_delta(small_unet)
    noise, empty = torch.randn(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)

    def sample(positive, negative):
        euler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(
            model, noise, 2.0, euler, schedule(model, 5), positive, negative, empty, disable_pbar=True
        )

    controlled = sample(positive, negative)
    assert sorted(set(told), reverse=True) == STEPS
    assert not torch.allclose(controlled, sample(conditioning(0.1), conditioning(0.2)))
