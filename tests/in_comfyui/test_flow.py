"""Everything the pack does for Stable Diffusion, on small flow models of the real layouts through stock loaders."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from trial.small_models.flows import FLOWS

WITHOUT_GRADIENT = ("joyimage", "ernie")  # ComfyUI's code of them, Train LoRA included


@pytest.fixture(params=FLOWS)
def name(request, comfyui):
    from trial.small_models.flows import known_flows

    if request.param not in known_flows():
        pytest.skip(f"this ComfyUI is older than its support of {request.param}")
    return request.param


@pytest.fixture
def model(flow_model, name):
    return flow_model(name)


def train(comfyui, name, model, **inputs):
    from flow_models import conditioning, empty_latent
    from node_training import train_on

    latent = empty_latent(name, model)["samples"]
    drawn = torch.randn(latent.shape, generator=torch.Generator().manual_seed(5))
    return train_on(comfyui, model, [{"samples": drawn}], [conditioning(name, 1)], rank=2, **inputs)


@pytest.fixture
def sampled(run, name):
    """What stock KSampler makes of noise in four steps."""
    from flow_models import conditioning, empty_latent

    def sample(model, scheduler="simple", steps=4, cfg=1.0):
        prompts = {"positive": conditioning(name, 1), "negative": conditioning(name, 0, tokens=3)}
        how = {"seed": 5, "steps": steps, "cfg": cfg, "sampler_name": "euler", "scheduler": scheduler, "denoise": 1.0}
        return run("KSampler", model=model, **prompts, **how, latent_image=empty_latent(name, model))[0]["samples"]

    return sample


def apply(run, model, path, **inputs):
    settings = {"strength": 1.0, "prediction_type": "auto", "windows": 0, "align_steps": True}
    return run("PeRFlowApplyDelta", model=model, delta_name=path.name, **settings | inputs)[0]


def with_lora(model, tensors):
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]


def test_from_training_to_the_stock_lora_loader(comfyui, name, model, run, sampled):
    """Train, apply, sample on the windows, extract; the stock loader makes the same of both files."""
    if name in WITHOUT_GRADIENT:
        with pytest.raises(RuntimeError, match=r"has an operation without a gradient .+: update ComfyUI, or train on"):
            train(comfyui, name, model)
        return
    path, losses, _ = train(comfyui, name, model, learning_rate=1e-2)
    assert len(losses) == 2
    tensors = safetensors.torch.load_file(path)
    assert max(float(tensor.abs().max()) for key, tensor in tensors.items() if key.endswith("lora_up.weight")) > 0
    assert all(key.startswith("diffusion_model.") for key in tensors)

    base, found = sampled(model), sampled(applied := apply(run, model, path))
    size = found.std()
    assert found.isfinite().all()
    assert (found - base).std() > 1e-4 * size
    assert (found - sampled(with_lora(model, tensors))).abs().max() < 1e-4 * size

    inputs = {"filename_prefix": "again", "rank": 0, "energy": 0.0, "prediction_type": "auto", "windows": 4}
    (again,) = run("PeRFlowExtractDelta", model_perflow=applied, model_base=model, **inputs)
    whole = safetensors.torch.load_file(again)
    assert (sampled(apply(run, model, Path(again))) - found).abs().max() < 1e-3 * size
    assert (sampled(with_lora(model, whole)) - found).abs().max() < 1e-3 * size
