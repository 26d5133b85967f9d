"""A picture back to its noise, by a rising list through the PeRFlow Sampler, and edited from there."""

import pytest
import torch

SOURCE = "a lighthouse on a cliff at sunset"
EDITED = "a castle on a cliff at sunset"
EDIT = {"edit": "auto", "cross_steps": 0.8, "self_steps": 0.4, "emphasis": "", "blend": "", "blend_threshold": 0.3}


@pytest.fixture(scope="module")
def clip(comfyui):
    import trained_narrow

    return trained_narrow.clip()


@pytest.fixture
def model(comfyui, run):
    """The trained small model with PeRFlow's sampling."""
    import trained_narrow

    sampling = {"prediction_type": "ddim_eps", "windows": 4, "align_steps": True}
    return run("PeRFlowModelSampling", model=trained_narrow.perflow_unet(), **sampling)[0]


@pytest.fixture
def prompts(run, clip):
    return {
        name: run("CLIPTextEncode", clip=clip, text=text)[0] for name, text in (("positive", SOURCE), ("negative", ""))
    }


@pytest.fixture
def picture(run, model, prompts):
    """A LATENT that no 4 steps of the model would give."""
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    settings = {"seed": 3, "steps": 12, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return run("KSampler", model=model, latent_image=latent, **prompts, **settings)[0]


@pytest.fixture
def walk(run, model, prompts):
    """Along sigmas without noise of one's own; returns the LATENT."""

    def sample(latent, sigmas, sampler, cfg=1.0, model=model, **inputs):
        guider = run("CFGGuider", model=model, cfg=cfg, **(prompts | inputs))[0]
        common = {"noise": run("DisableNoise")[0], "sampler": sampler, "sigmas": sigmas, "latent_image": latent}
        return run("SamplerCustomAdvanced", guider=guider, **common)[0]

    return sample


@pytest.fixture
def lost(run, model, schedule, walk, picture):
    """What is missing of the picture after it was turned into noise and sampled again, as a share of it."""
    from analytic_model import relative_error

    def measure(steps, there, cfg=1.0):
        falling = schedule(model, steps)
        rising = run("FlipSigmas", sigmas=falling.clone())[0]
        noise = walk(picture, rising, there, cfg)
        again = walk(noise, falling, run("KSamplerSelect", sampler_name="euler")[0], cfg)
        return relative_error(again["samples"], picture["samples"])

    return measure


def test_the_picture_comes_back(run, lost):
    """At 4 and 8 steps; stock euler, which looks from the picture's end of every step, loses far more."""
    ours, stock = run("PeRFlowSampler", solver="euler")[0], run("KSamplerSelect", sampler_name="euler")[0]
    assert lost(4, ours) < 0.06
    assert lost(8, ours) < 0.05
    assert lost(4, stock) > 0.2


def test_an_edit_from_the_noise_of_a_picture(run, model, schedule, walk, picture, clip):
    """The first of the batch is the picture, the second its edit."""
    from analytic_model import relative_error

    falling = schedule(model, 4)
    ours = run("PeRFlowSampler", solver="euler")[0]
    noise = walk(picture, run("FlipSigmas", sigmas=falling.clone())[0], ours)
    edited, positive, batch = run(
        "PeRFlowPromptToPrompt", model=model, clip=clip, latent=noise, source=SOURCE, edited=EDITED, **EDIT
    )
    source, edit = walk(batch, falling, ours, model=edited, positive=positive)["samples"]
    assert relative_error(source, picture["samples"][0]) < 0.1
    assert 0.05 < relative_error(edit, source) < 1
