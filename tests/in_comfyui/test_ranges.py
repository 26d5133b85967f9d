"""Ranges given in percent: each step belongs to one of two that meet, as on the base model."""

from collections import defaultdict

import pytest
import torch

PERCENTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.375, 0.4, 0.5, 0.6, 0.625, 0.7, 0.75, 0.8, 0.875, 1.0)
STEPS = (4, 5, 6, 8, 12, 16)


@pytest.fixture
def active(run, noise):
    """(MODEL, SIGMAS, p) -> by step, which of two prompts the UNet saw: 1 runs from 0 to p, 2 from p to 1."""
    import comfy.sample
    import comfy.samplers
    from analytic_model import conditioning

    def find(model, sigmas, percent):
        seen = defaultdict(set)
        positive = [
            run("ConditioningSetTimestepRange", conditioning=conditioning(i), start=start, end=end)[0][0]
            for i, (start, end) in enumerate([(0.0, percent), (percent, 1.0)], 1)
        ]
        hook = model.model.diffusion_model.register_forward_pre_hook(
            lambda module, args, kwargs: seen[args[1][0].item()].update(kwargs["context"][:, 0, 0].tolist()),
            with_kwargs=True,
        )
        euler, latent = comfy.samplers.sampler_object("euler"), torch.zeros_like(noise)
        comfy.sample.sample_custom(
            model, noise, 1.0, euler, sigmas, positive, conditioning(0), latent, disable_pbar=True
        )
        hook.remove()
        return [tuple(seen[T]) for T in sorted(seen, reverse=True)]

    return find


@pytest.mark.parametrize("steps", STEPS)
def test_perflow_counts_as_the_base_at_the_same_timesteps(analytic, perflow, schedule, active, steps):
    """The base is sampled at the same timesteps: entry T - 1 of its table is told what the windows call T."""
    model = perflow()
    sigmas = schedule(model, steps)
    T = model.get_model_object("model_sampling").timestep(sigmas[:-1])
    table = analytic.get_model_object("model_sampling").sigmas
    on_base = torch.cat([table[T.long() - 1], torch.zeros(1)])
    for percent in PERCENTS:
        found = active(model, sigmas, percent)
        assert found == active(analytic, on_base, percent), percent
        assert len(found) == steps
        if 0 < percent < 1:
            assert all(len(prompts) == 1 for prompts in found), percent


@pytest.mark.parametrize("steps", [4, 8, 16])
@pytest.mark.parametrize("family", ["PeRFlow", "InstaFlow"])
def test_a_plain_ksampler_counts_as_with_the_base(run, t2i, perflow, active, family, steps):
    """Step counts whose steps are the base's own: simple has them at the same percentages."""
    import comfy.samplers
    from family_models import laid_out_model

    base = laid_out_model(t2i)
    if family == "PeRFlow":
        model = perflow(model=base)
    else:
        (model,) = run("InstaFlowModelSampling", model=base, family="rectified_flow", align_steps=True)

    def simple(of):
        return comfy.samplers.calculate_sigmas(of.get_model_object("model_sampling"), "simple", steps)

    for percent in PERCENTS[1:]:  # ComfyUI's flow models take the first step into a range from 0 to 0
        assert active(model, simple(model), percent) == active(base, simple(base), percent), percent


def test_a_controlnet_that_ends_half_way_takes_half_the_steps(controlnet, small_unet, apply_delta, schedule):
    import comfy.sample
    import comfy.samplers

    controlled, timesteps = controlnet
    model, euler = apply_delta(small_unet), comfy.samplers.sampler_object("euler")
    noise, latent = torch.randn(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    for end, expected in ((0.25, [1000]), (0.5, [1000, 750]), (0.75, [1000, 750, 500])):
        positive, negative = controlled(end)
        timesteps.clear()
        comfy.sample.sample_custom(
            model, noise, 1.0, euler, schedule(model), positive, negative, latent, disable_pbar=True
        )
        assert timesteps == expected


@pytest.mark.parametrize(("end", "expected"), [(0.25, 1), (0.5, 2), (0.75, 3)])
def test_a_node_before_or_after_ours_counts_alike(run, analytic, perflow, schedule, end, expected):
    """A node that asks for its levels when it runs: of the base's table before ours, of ours after it."""

    def patched(model):
        inputs = {"block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": end}
        inputs |= {"downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic"}
        return run("PatchModelAddDownscale", model=model, **inputs)[0]

    counts = []
    for model in (patched(perflow()), perflow(model=patched(analytic))):
        (patch,) = model.model_options["transformer_options"]["patches"]["input_block_patch_after_skip"]
        hidden = torch.zeros(1, 1, 8, 8)
        shrunk = [
            patch(hidden, {"block": ("input", 3), "sigmas": sigma[None]}).shape[-1] == 4
            for sigma in schedule(model)[:-1]
        ]
        counts.append(shrunk)
    assert counts == [[i < expected for i in range(4)]] * 2
