"""A UNet in Q8_0, as ComfyUI-GGUF loads it: everything works with it, to the quantisation's own error.

GGUF_PATH names a checkout of https://github.com/city96/ComfyUI-GGUF (Apache-2.0); it needs the package `gguf`.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

BLOCK = 32  # numbers of Q8_0 that share a scale
ROW = 256  # of what is no matrix
HALF = 2.0**-10  # ComfyUI-GGUF multiplies out in float16
NODES = {
    "PeRFlowModelSampling": {"prediction_type": "auto", "windows": 4, "align_steps": True},
    "InstaFlowModelSampling": {"family": "rectified_flow", "align_steps": True},
    "PCMPhaseSchedule": {
        "steps": 4,
        "grid": "trailing",
        "phases": 4,
        "denoise": 1.0,
        "end": "zero",
        "pcm_timesteps": 50,
    },
}
EXTRACT = {"filename_prefix": "gguf", "energy": 0.0, "prediction_type": "auto", "windows": 4}


@pytest.fixture(scope="module")
def pack(comfyui):
    """ComfyUI-GGUF's nodes, by their ids."""
    import other_packs

    folder = other_packs.checkout("GGUF_PATH")
    pytest.importorskip("gguf", reason="The package gguf, which ComfyUI-GGUF needs, is not here.")
    spec = importlib.util.spec_from_file_location("comfyui_gguf", folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="module")
def packed_file(pack, unet_file):
    """The small UNet in Q8_0; vectors stay as they are, as in published files."""
    import gguf

    path = unet_file.with_suffix(".gguf")
    writer = gguf.GGUFWriter(str(path), "sd1")
    for name, tensor in load_file(unet_file).items():
        numbers = tensor.float().numpy()
        form = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32
        if tensor.ndim == 4 and tensor.numel() % ROW == 0:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", tuple(tensor.shape))
            numbers = numbers.reshape(-1, ROW)
        elif tensor.shape[-1] % BLOCK:
            form = gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(numbers, form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def dequantised(packed_file):
    """The file's numbers, read by the package that made them: what a model of them computes with."""
    import gguf

    reader = gguf.GGUFReader(str(packed_file))
    return {part.name: torch.tensor(gguf.quants.dequantize(part.data, part.tensor_type)) for part in reader.tensors}


@pytest.fixture
def packed(pack, packed_file):
    return pack["UnetLoaderGGUF"]().load_unet(packed_file.name)[0]


@pytest.fixture
def sampling_weights(dequantised):
    """What the loaded model multiplies with, by the names of the file."""
    import comfy.model_management

    def of(model):
        comfy.model_management.load_models_gpu([model])
        found = {}
        for name, layer in model.model.diffusion_model.named_modules():
            if hasattr(layer, "cast_bias_weight"):
                weight, bias = layer.cast_bias_weight(dtype=torch.float32, device=torch.device("cpu"))
                found[f"{name}.weight"] = torch.Tensor(weight).clone()
                if bias is not None:
                    found[f"{name}.bias"] = torch.Tensor(bias).clone()
        return {name: found[name] for name in dequantised}

    return of


def latent(model, schedule, positive=0.1):
    import comfy.sample
    import comfy.samplers

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompt = [[torch.full((1, 77, 768), positive), {}]]
    euler = comfy.samplers.sampler_object("euler")
    empty = torch.zeros_like(noise)
    return comfy.sample.sample_custom(
        model, noise, 1.0, euler, schedule(model, 2), prompt, prompt, empty, disable_pbar=True
    )


def test_the_delta_is_added_to_the_packed_weights(
    packed, small_unet, apply_delta, weights, dequantised, sampling_weights
):
    """The sum is what the file holds plus the delta, to float32's rounding: no more is lost than the file lost."""
    before, base = sampling_weights(packed), weights.loaded(small_unet)
    after = sampling_weights(apply_delta(packed))
    plain = weights.loaded(apply_delta(small_unet))
    for name, stored in dequantised.items():
        assert torch.allclose(before[name].flatten(), stored.flatten(), rtol=HALF, atol=0), name
        expected = before[name] + (plain[f"diffusion_model.{name}"] - base[f"diffusion_model.{name}"])
        assert torch.allclose(after[name], expected, rtol=1e-5, atol=1e-6), name
    assert sum(bool((after[name] != before[name]).any()) for name in after) > 50


def test_the_packed_weights_come_back(packed, apply_delta, sampling_weights):
    before = sampling_weights(packed)
    sampling_weights(apply_delta(packed))
    after = sampling_weights(packed)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_it_samples_as_the_plain_one(packed, small_unet, apply_delta, schedule):
    expected, found = (latent(apply_delta(model), schedule) for model in (small_unet, packed))
    assert (found - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("node", NODES)
def test_the_family_is_told(run, packed, node):
    run(node, model=packed, **NODES[node])


def test_a_delta_is_taken_while_it_is_loaded(packed, small_unet, run, apply_delta, weights, schedule):
    """Of the packed model with the delta and without: the delta, to the precision of the file."""
    accelerated = apply_delta(packed)
    latent(accelerated, schedule)
    (path,) = run("PeRFlowExtractDelta", model_perflow=accelerated, model_base=packed, rank=0, **EXTRACT)
    base = weights.loaded(small_unet)
    expected, found = (
        weights.loaded(apply_delta(small_unet, **inputs)) for inputs in ({}, {"delta_name": Path(path).name})
    )
    for key, weight in expected.items():
        assert torch.allclose(found[key], weight, rtol=1e-3, atol=float((weight - base[key]).abs().max()) / 500), key


def test_what_packing_lost_is_taken(packed, packed_file, unet_file, small_unet, run, dequantised):
    """Packed less plain is the quantisation's error; also of a model that is loaded with nothing."""
    (path,) = run("PeRFlowExtractDelta", model_perflow=packed, model_base=small_unet, rank=0, **EXTRACT)
    found = load_file(path)
    for name, plain in load_file(unet_file).items():
        module, _, kind = f"diffusion_model.{name}".rpartition(".")
        taken = found[f"{module}.diff{'' if kind == 'weight' else '_b'}"].float()
        assert torch.allclose(plain.float() + taken, dequantised[name].reshape(plain.shape), rtol=HALF, atol=1e-6), name


def test_as_load_lora_adds_it(comfyui, packed, run, apply_delta, schedule):
    (path,) = run("PeRFlowExtractDelta", model_perflow=apply_delta(packed), model_base=packed, rank=4, **EXTRACT)
    loras = comfyui.base / "models" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, loras / "gguf.safetensors")
    ours = apply_delta(packed, delta_name=Path(path).name)
    sampling = run("PeRFlowModelSampling", model=packed, **NODES["PeRFlowModelSampling"])[0]
    stock = run("LoraLoaderModelOnly", model=sampling, lora_name="gguf.safetensors", strength_model=1.0)[0]
    assert torch.equal(latent(ours, schedule), latent(stock, schedule))


def test_every_layer_is_trained(packed, train, apply_delta, schedule):
    path, _, _ = train(packed, steps=2)
    tensors = load_file(path)
    ups = [name for name in tensors if name.endswith("lora_up.weight")]
    assert len(ups) == sum(len(weight.shape) > 1 for _, weight in packed.model.diffusion_model.named_parameters())
    assert all(tensors[name].any() for name in ups)
    assert latent(apply_delta(packed, delta_name=path.name), schedule).isfinite().all()
