"""The small flow-matching models are to ComfyUI what the published ones are."""

import math

import pytest
import torch
from trial.small_models.flows import FLOWS

# The sigma in the middle of the steps: a / (a + 1), with the class' shift as a, or as its logarithm in Flux' sampling.
SHIFTS = {
    "sd3.5": 3.0,
    "flux": math.exp(1.15),
    "flux-schnell": 1.0,
    "flux2": math.exp(2.02),
    "wan2.1": 8.0,
    "wan2.2-5b": 8.0,
    "wan2.2-i2v": 8.0,
    "hunyuan-video": 7.0,
    "hunyuan-video-1.5": 7.0,
    "longcat-image": math.exp(1.15),
    "ltxav": math.exp(2.37),
    "hunyuan-image": 5.0,
    "ltxv": math.exp(2.37),
    "ace-step-1.5": 3.0,
    "lens": math.exp(1.829),
    "krea2": math.exp(1.15),
    "joyimage": 1.5,
    "chroma": math.exp(1.15),
    "lumina2": 6.0,
    "z-image": 3.0,
    "qwen-image": math.exp(1.15),
    "auraflow": 1.73,
    "hidream": 1.0,
    "omnigen2": 2.6,
    "kandinsky5": 10.0,
    "ernie": 3.0,
    "mage-flow": 6.0,
}
# What the model is told at sigma 1, where it is not 1000 or, in Flux' sampling, 1.
ONE = ["flux-schnell", "ace-step-1.5", "lumina2", "z-image", "auraflow", "omnigen2", "mage-flow"]


@pytest.fixture
def model(flow_model, layout):
    return flow_model(layout)


def test_recognised_with_its_sampling(model, layout):
    from comfy.model_sampling import CONST, ModelSamplingDiscreteFlow, ModelSamplingFlux

    sampling = model.get_model_object("model_sampling")
    assert type(model.model.model_config).__name__ == FLOWS[layout].kind
    assert isinstance(sampling, CONST)
    assert isinstance(sampling, (ModelSamplingDiscreteFlow, ModelSamplingFlux))
    assert sampling.percent_to_sigma(0.5) == pytest.approx(SHIFTS[layout] / (SHIFTS[layout] + 1), rel=1e-6)
    told = 1 if isinstance(sampling, ModelSamplingFlux) or layout in ONE else 1000
    assert sampling.timestep(torch.tensor(1.0)) == told


def test_every_weight_is_in_the_file(model, layout):
    """None is left as the loader found it in memory."""
    from trial.small_models.flows import flow

    expected = flow(layout, 0)
    weights = model.model.diffusion_model.state_dict()
    assert weights.keys() == expected.keys()
    for key, weight in weights.items():
        assert torch.equal(weight, expected[key].float()), key


def test_a_sample_depends_on_the_prompt(run, model, layout):
    from flow_models import conditioning, empty_latent

    def sample(seed, cfg=1.0):
        prompts = {"positive": conditioning(layout, seed), "negative": conditioning(layout, 0, tokens=3)}
        steps = {"seed": 5, "steps": 2, "cfg": cfg, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        latent = run("KSampler", model=model, **prompts, **steps, latent_image=empty_latent(layout, model))[0][
            "samples"
        ]
        return latent.unbind() if latent.is_nested else [latent]

    first = sample(1)
    others = [sample(2), sample(1, cfg=3.0)]
    for i, part in enumerate(first):
        assert part.isfinite().all()
        assert part.std() < 20
        for other in others:
            assert (other[i] - part).std() > 0.005 * part.std()
