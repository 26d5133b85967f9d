"""Quantised models, as ComfyUI's stock loader reads them: deltas are applied to them and taken of them."""

from pathlib import Path

import pytest
import torch
from quantised_files import FORMATS, in_format, is_known
from safetensors import safe_open
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module", params=["SDXL in fp8", *(f"SD1.5 in {form}" for form in FORMATS)])
def kind(request, comfyui):
    form = request.param.split()[-1]
    if not is_known(form):
        pytest.skip(f"This ComfyUI does not know {FORMATS[form].name}.")
    return request.param


@pytest.fixture(scope="module")
def files(kind, comfyui):
    """(plain, quantised, delta): a small UNet, the same in 8 or 4 bits with scales, and a delta for both."""
    from trial import small_models

    family, _, form = kind.split()
    preset = {"SD1.5": small_models.SD15_TINY, "SDXL": small_models.SDXL_SMALL}[family]
    folder = comfyui.base / "models" / "diffusion_models"
    plain = small_models.make_unet(folder / f"{kind}-plain.safetensors", preset)
    delta = small_models.make_delta(comfyui.base / "models" / "perflow" / f"{kind}-q.safetensors", plain)
    quantised = folder / f"{kind}.safetensors"
    save_file(in_format(load_file(plain), form), quantised)
    return plain, quantised, delta


@pytest.fixture(scope="module")
def models(files):
    import comfy.sd

    return [comfy.sd.load_diffusion_model(str(file)) for file in files[:2]]


@pytest.fixture(scope="module")
def with_delta(apply_delta, files, models):
    return [apply_delta(model, delta_name=files[2].name) for model in models]


@pytest.fixture(scope="module")
def sampled(comfyui, schedule, with_delta):
    """(latent, weights) of both with the delta; adding it to eight-bit weights takes long, so each is loaded once."""
    return [(latent(schedule, model), sampling_weights(comfyui, model)) for model in with_delta]


def latent(schedule, model):
    import comfy.sample
    import comfy.samplers

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    width = model.model.model_config.unet_config["context_dim"]
    prompt = [[torch.full((1, 77, width), 0.1), {"pooled_output": torch.zeros(1, 1280)}]]
    euler = comfy.samplers.sampler_object("euler")
    empty = torch.zeros_like(noise)
    return comfy.sample.sample_custom(
        model, noise, 1.0, euler, schedule(model, 2), prompt, prompt, empty, disable_pbar=True
    )


def sampling_weights(comfyui, model):
    """The weights while the model samples, quantised ones multiplied out."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    found = comfyui.module("nodes.comfyui.weights.unet_weights").unet_weights(model)
    found = {
        key: weight.dequantize().float() if is_quantised(weight) else weight.float() for key, weight in found.items()
    }
    found = {key: weight.clone() for key, weight in found.items()}
    model.detach()
    return found


def is_quantised(weight):
    from comfy.quant_ops import QuantizedTensor

    return isinstance(weight, QuantizedTensor)


def test_the_delta_is_added(comfyui, kind, models, sampled):
    """To every weight, as exactly as eight bits, or four, hold it."""
    form = FORMATS[kind.split()[-1]]
    assert (
        sum(map(is_quantised, comfyui.module("nodes.comfyui.weights.unet_weights").unet_weights(models[1]).values()))
        > 20
    )
    before, base = (sampling_weights(comfyui, model) for model in models)
    (_, after), (_, found) = sampled
    assert found.keys() == after.keys()
    for key, weight in after.items():
        assert (found[key] - weight).norm() < form.rounding * weight.norm(), key
    dW = {key: after[key] - before[key] for key in after}
    along = sum(float((dW[key] * (found[key] - base[key])).sum()) for key in dW)  # rounding has no direction, dW has
    assert along / sum(float(change.square().sum()) for change in dW.values()) == pytest.approx(1, abs=form.along)


def test_it_samples(sampled):
    (expected, _), (found, _) = sampled
    assert torch.isfinite(found).all()
    assert (found - expected).norm() < 0.5 * expected.norm()


@pytest.mark.parametrize("rank", [0, 4])
def test_a_delta_is_taken(comfyui, models, files, run, apply_delta, with_delta, sampled, rank):
    """Of a quantised model with patches and a plain one: every weight, and nothing of the scales."""
    inputs = {"filename_prefix": "quantised", "rank": rank, "energy": 0.0, "prediction_type": "auto", "windows": 4}
    (path,) = run("PeRFlowExtractDelta", model_perflow=with_delta[1], model_base=models[1], **inputs)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        assert not [name for name in names if "quant" in name or "scale" in name]
        assert {file.get_tensor(name).dtype for name in names if not name.endswith(".alpha")} == {torch.float16}
    if rank == 0:
        assert len(names) == len(load_file(files[0]))
        expected = sampled[0][1]
        found = sampling_weights(comfyui, apply_delta(models[0], delta_name=Path(path).name))
        for key, weight in expected.items():
            assert torch.allclose(found[key], weight, rtol=1e-2, atol=float(weight.abs().max()) / 500), key


def test_weights_that_nothing_can_be_added_to(comfyui, models, files, apply_delta, monkeypatch):
    """Other packs' loaders keep packed numbers of their own."""
    plain = models[0]
    key, weight = next((key, weight) for key, weight in plain.model.named_parameters() if weight.ndim == 2)
    layer = comfyui.module("nodes.comfyui.weights.unet_weights").comfy.utils.get_attr(
        plain.model, key.rpartition(".")[0]
    )
    packed = torch.nn.Parameter(torch.zeros(weight.shape, dtype=torch.uint8), requires_grad=False)
    monkeypatch.setitem(layer._parameters, "weight", packed)
    with pytest.raises(
        ValueError, match=r"is stored as torch\.uint8, to which nothing can be added, expected fp16, [^\n]+\.$"
    ):
        apply_delta(plain, delta_name=files[2].name)
