"""After a delta, stock patches or partial loading the plain model's weights are the same bits again, in fp16.

The patcher without dynamic VRAM (--disable-dynamic-vram) changes weights in place of keeping patches apart.
"""

import pytest
import torch


@pytest.fixture
def half(unet_file):
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(unet_file), model_options={"dtype": torch.float16})


@pytest.fixture
def patched(run, apply_delta, delta_file, comfyui, half):
    """(kind) -> the MODEL with patches of that kind."""
    import shutil

    def make(kind):
        if kind == "delta":
            return apply_delta(half)
        other = run("UNETLoader", unet_name="tiny.safetensors", weight_dtype="default")[0]
        if kind == "ModelMergeAdd":
            return run("ModelMergeAdd", model1=half, model2=other)[0]
        inputs = {"filename_prefix": "back", "rank": 4, "energy": 0.0, "prediction_type": "auto", "windows": 4}
        (path,) = run("PeRFlowExtractDelta", model_perflow=apply_delta(half), model_base=half, **inputs)
        (comfyui.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, comfyui.base / "models" / "loras" / "back.safetensors")
        return run("LoraLoaderModelOnly", model=half, lora_name="back.safetensors", strength_model=1.0)[0]

    return make


def bits(model):
    """Every weight as it is in the module, as whole numbers."""
    named = model.model.diffusion_model.named_parameters()
    return {name: weight.detach().contiguous().view(torch.int16).clone() for name, weight in named}


def functions(model):
    """How many functions on weights the module's layers have."""
    return sum(len(getattr(layer, "weight_function", ())) for layer in model.model.diffusion_model.modules())


def loaded_whole(model):
    model.partially_load(torch.device("cpu"), 1e32)


def loaded_in_part(model):
    """Some of it patched in place, the rest patched when it is used."""
    model.patch_model(torch.device("cpu"), lowvram_model_memory=4 * model.model_size() // 5)
    assert functions(model) > 5
    assert len(model.backup) > 5


def loaded_then_freed_in_part(model):
    loaded_whole(model)
    model.partially_unload(model.offload_device, model.model_size() // 2)
    assert functions(model) > 5
    assert len(model.backup) > 5


@pytest.mark.parametrize("load", [loaded_whole, loaded_in_part, loaded_then_freed_in_part])
@pytest.mark.parametrize("kind", ["delta", "ModelMergeAdd", "LoRA"])
def test_every_bit_comes_back(half, patched, kind, load):
    loaded_whole(half)
    before = bits(half)
    assert len(before) > 50
    model = patched(kind)
    half.unpatch_model(half.offload_device)
    load(model)
    changed = bits(model)
    assert any(not torch.equal(changed[name], before[name]) for name in before)
    model.detach()
    loaded_whole(half)
    after = bits(half)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert functions(half) == 0
    half.detach()
