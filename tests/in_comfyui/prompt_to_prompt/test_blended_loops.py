"""Every sampler of ComfyUI with LocalBlend: pixels that leave the mask and come back, by a script."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from scripted_masks import GROUP, PIXELS, Denoiser, furthest, mask, start

# dpm_adaptive chooses its steps by all pixels of all rows, so that a run beside it is not the same.
ADAPTIVE = "dpm_adaptive"


def stock():
    import comfy.samplers

    return [name for name in comfy.samplers.SAMPLER_NAMES if name not in ("ddim", ADAPTIVE, "ar_video")]


def one_noise(rows):
    """A noise sampler that gives every row the same."""

    def sample(sigma, sigma_next):
        noise = torch.randn(1, 2, 1, PIXELS, generator=torch.Generator().manual_seed(int(1000 * sigma)))
        return noise.repeat(rows, 1, 1, 1)

    return sample


@pytest.fixture
def loops(comfyui, models):
    """(name of a sampler, model of k-diffusion's kind, x, sigmas, located) -> its result, blended where located is."""
    import comfy.samplers

    blending = comfyui.module("nodes.comfyui.editing.latent_blending")
    patcher = models("SD1.5")

    def call(name, denoiser, x, sigmas, located=None):
        loop = comfy.samplers.sampler_object(name).sampler_function
        spares = len(x) // GROUP * (GROUP - 1) * (len(sigmas) // 2) if located is not None else 0
        takes_noise = "noise_sampler" in inspect.signature(loop).parameters
        noises = {"noise_sampler": one_noise(len(x) + spares)} if takes_noise else {}
        denoiser.inner_model = SimpleNamespace(model_patcher=patcher, inner_model=patcher.model)
        options = {"transformer_options": {blending.KEY: SimpleNamespace(located=located)}}
        extra_args = {"seed": 0, "model_options": options}
        return blending.blended(loop)(
            denoiser, x, sigmas.clone(), extra_args=extra_args, callback=lambda _: None, disable=True, **noises
        )

    return call


def test_a_pixel_that_comes_back_was_the_source_until_then(comfyui, loops, models):
    import comfy.samplers

    sigmas = comfy.samplers.calculate_sigmas(models("SD1.5").get_model_object("model_sampling"), "karras", 8)
    x = start(sigmas)

    def error(name):
        denoiser = Denoiser()
        located = SimpleNamespace(plan=SimpleNamespace(rows=GROUP), mask=lambda: mask(denoiser.calls - 1))
        found = loops(name, denoiser, x, sigmas, located)
        return furthest(found, lambda alone: loops(name, alone, x[::GROUP], sigmas))

    errors = {name: error(name) for name in stock()}
    assert len(errors) > 35
    assert {name: error for name, error in errors.items() if error > 1e-5} == {}
