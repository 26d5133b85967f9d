"""Quantised models, as ComfyUI's stock loader reads them: deltas are applied to them and taken of them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module", params=["SD1.5", "SDXL"])
def files(request, comfyui):
    """(plain, quantised, delta): a small UNet, the same in fp8 with scales, and a delta for both."""
    from trial import small_models

    preset = {"SD1.5": small_models.SD15_TINY, "SDXL": small_models.SDXL_SMALL}[request.param]
    folder = comfyui.base / "models" / "diffusion_models"
    plain = small_models.make_unet(folder / f"{request.param}-plain.safetensors", preset)
    delta = small_models.make_delta(comfyui.base / "models" / "perflow" / f"{request.param}-q.safetensors", plain)
    quantised = folder / f"{request.param}-fp8.safetensors"
    save_file(in_fp8(load_file(plain)), quantised)
    return plain, quantised, delta


def in_fp8(tensors):
    """As ComfyUI's own fp8 files: every linear layer with its scale and a note of its format."""
    found = dict(tensors)
    for name, weight in tensors.items():
        if not (name.endswith(".weight") and weight.ndim == 2):
            continue
        layer = name.removesuffix(".weight")
        scale = weight.abs().max().float() / torch.finfo(FP8).max
        found[name] = (weight.float() / scale).to(FP8)
        found[f"{layer}.weight_scale"] = scale
        found[f"{layer}.comfy_quant"] = torch.tensor(
            list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8
        )
    return found


@pytest.fixture(scope="module")
def models(files):
    import comfy.sd

    return [comfy.sd.load_diffusion_model(str(file)) for file in files[:2]]


def sampling_weights(comfyui, model):
    """The weights while the model samples, quantised ones multiplied out."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    found = comfyui.module("nodes.comfyui.unet").unet_weights(model)
    found = {
        key: weight.dequantize().float() if is_quantised(weight) else weight.float() for key, weight in found.items()
    }
    found = {key: weight.clone() for key, weight in found.items()}
    model.detach()
    return found


def is_quantised(weight):
    from comfy.quant_ops import QuantizedTensor

    return isinstance(weight, QuantizedTensor)


def test_the_delta_is_added(comfyui, files, models, apply_delta):
    """To every weight, as exactly as eight bits hold it."""
    plain, quantised = models
    assert sum(map(is_quantised, comfyui.module("nodes.comfyui.unet").unet_weights(quantised).values())) > 20
    before, after = (
        sampling_weights(comfyui, model) for model in (plain, apply_delta(plain, delta_name=files[2].name))
    )
    base = sampling_weights(comfyui, quantised)
    found = sampling_weights(comfyui, apply_delta(quantised, delta_name=files[2].name))
    assert found.keys() == after.keys()
    for key, weight in after.items():
        assert (found[key] - weight).norm() < 0.1 * weight.norm(), key
    dW = {key: after[key] - before[key] for key in after}
    along = sum(float((dW[key] * (found[key] - base[key])).sum()) for key in dW)  # rounding has no direction, dW has
    assert along / sum(float(change.square().sum()) for change in dW.values()) == pytest.approx(1, abs=0.05)


def test_it_samples(comfyui, models, files, apply_delta, schedule):
    import comfy.sample
    import comfy.samplers

    def picture(model):
        model = apply_delta(model, delta_name=files[2].name)
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        width = model.model.model_config.unet_config["context_dim"]
        prompt = [[torch.full((1, 77, width), 0.1), {"pooled_output": torch.zeros(1, 1280)}]]
        euler = comfy.samplers.sampler_object("euler")
        latent = torch.zeros_like(noise)
        return comfy.sample.sample_custom(
            model, noise, 1.0, euler, schedule(model, 2), prompt, prompt, latent, disable_pbar=True
        )

    expected, found = (picture(model) for model in models)
    assert torch.isfinite(found).all()
    assert (found - expected).norm() < 0.5 * expected.norm()


@pytest.mark.parametrize("rank", [0, 4])
def test_a_delta_is_taken(comfyui, models, files, run, apply_delta, rank):
    """Of a quantised model with patches and a plain one: every weight, and nothing of the scales."""
    merged = apply_delta(models[1], delta_name=files[2].name)
    inputs = {"filename_prefix": "quantised", "rank": rank, "energy": 0.0, "prediction_type": "auto", "windows": 4}
    (path,) = run("PeRFlowExtractDelta", model_perflow=merged, model_base=models[1], **inputs)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        assert not [name for name in names if "quant" in name or "scale" in name]
        assert {file.get_tensor(name).dtype for name in names if not name.endswith(".alpha")} == {torch.float16}
    if rank == 0:
        assert len(names) == len(load_file(files[0]))
        expected = sampling_weights(comfyui, apply_delta(models[0], delta_name=files[2].name))
        found = sampling_weights(comfyui, apply_delta(models[0], delta_name=Path(path).name))
        for key, weight in expected.items():
            assert torch.allclose(found[key], weight, rtol=1e-2, atol=float(weight.abs().max()) / 500), key


def test_weights_that_nothing_can_be_added_to(comfyui, models, files, apply_delta, monkeypatch):
    """Other packs' loaders keep packed numbers of their own."""
    plain = models[0]
    key, weight = next((key, weight) for key, weight in plain.model.named_parameters() if weight.ndim == 2)
    layer = comfyui.module("nodes.comfyui.unet").comfy.utils.get_attr(plain.model, key.rpartition(".")[0])
    packed = torch.nn.Parameter(torch.zeros(weight.shape, dtype=torch.uint8), requires_grad=False)
    monkeypatch.setitem(layer._parameters, "weight", packed)
    with pytest.raises(
        ValueError, match=r"is stored as torch\.uint8, to which nothing can be added, expected fp16, [^\n]+\.$"
    ):
        apply_delta(plain, delta_name=files[2].name)
