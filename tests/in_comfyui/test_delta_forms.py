"""Every form of delta file on every kind of base: SD1.5, its inpainting model, SD2.x and SDXL; no form is copied."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

INPUT = "diffusion_model.input_blocks.0.0.weight"
DEFAULTS = {"strength": 1.0, "prediction_type": "auto", "windows": 0, "align_steps": True}


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


def as_diff(name):
    """diffusion_model.out.2.bias -> diffusion_model.out.2.diff_b"""
    module, _, kind = name.rpartition(".")
    return f"{module}.diff" if kind == "weight" else f"{module}.diff_b"


@pytest.fixture(scope="module")
def written(comfyui, delta_file):
    """Write tensors to models/perflow."""

    def write(name, tensors):
        path = delta_file.parent / f"{name}.safetensors"
        path.unlink(missing_ok=True)  # not over one that may still be mapped
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, str(path))
        return path

    return write


@pytest.fixture
def forms(small_unet, delta_file, written, weights):
    """form -> its file, and the difference in it by ComfyUI's names."""
    theirs = load_file(str(delta_file))
    delta = weights.delta_of(small_unet, delta_file)
    ours = {key: tensor.half() for key, tensor in delta.items()}

    def make(form):
        if form == "low rank":
            return low_rank(ours)
        tensors = {
            "diffusers": theirs,
            "ComfyUI": ours,
            "checkpoint": {f"model.{key}": tensor for key, tensor in ours.items()},
            "diff, ComfyUI": {as_diff(key): tensor for key, tensor in ours.items()},
            "diff, diffusers": {as_diff(key): tensor for key, tensor in theirs.items()},
            "diff, unet.": {as_diff(f"unet.{key}"): tensor for key, tensor in theirs.items()},
        }[form]
        return written(form, tensors), delta

    def low_rank(ours):
        """Matrices as pairs, the rest whole, as Extract writes it."""
        tensors, delta = {}, {}
        for key, tensor in ours.items():
            if tensor.ndim != 2:
                tensors[as_diff(key)], delta[key] = tensor, tensor.float()
                continue
            module, (out, inner) = key.removesuffix(".weight"), tensor.shape
            up, down = tensor[:, :8].clone(), tensor[:8].clone()
            tensors |= {f"{module}.lora_up.weight": up, f"{module}.lora_down.weight": down}
            tensors[f"{module}.alpha"] = torch.tensor(4.0)
            delta[key] = 0.5 * up.float() @ down.float()
            assert delta[key].shape == (out, inner)
        return written("low rank", tensors), delta

    return make


FORMS = ["diffusers", "ComfyUI", "checkpoint", "diff, ComfyUI", "diff, diffusers", "diff, unet.", "low rank"]


@pytest.mark.parametrize("strength", [1.0, -0.7])
@pytest.mark.parametrize("form", FORMS)
def test_weights_are_base_plus_strength_times_delta(small_unet, apply_delta, forms, weights, form, strength):
    file, delta = forms(form)
    base = weights.loaded(small_unet)
    found = weights.loaded(apply_delta(small_unet, delta_name=file.name, strength=strength))
    weights.assert_sum(found, base, delta, strength)


def tensors_in(patch):
    """What a patch holds: ("diff", (tensor,)) or an adapter."""
    parts = patch[1] if isinstance(patch, tuple) else patch.weights
    return [part for part in parts if isinstance(part, torch.Tensor)]


@pytest.mark.parametrize("strength", [1.0, 0.3, -2.0])
@pytest.mark.parametrize("form", FORMS)
def test_patches_are_what_the_file_loader_returned(small_unet, apply_delta, forms, monkeypatch, form, strength):
    """The very tensors; the strength stands beside them."""
    import comfy.utils

    file, _ = forms(form)
    load, returned = comfy.utils.load_torch_file, {}
    monkeypatch.setattr(
        comfy.utils, "load_torch_file", lambda *args, **kw: returned.setdefault("it", load(*args, **kw))
    )
    accelerated = apply_delta(small_unet, delta_name=file.name, strength=strength)
    patches = [entry for (entry,) in accelerated.patches.values()]
    assert {(entry[0], entry[2]) for entry in patches} == {(strength, 1.0)}
    held = {id(tensor) for entry in patches for tensor in tensors_in(entry[1])}
    numbers = {id(tensor) for key, tensor in returned["it"].items() if not key.endswith(".alpha")}
    assert held == numbers


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("form", ["diffusers", "diff, ComfyUI", "low rank"])
def test_patches_are_views_of_the_file(small_unet, apply_delta, forms, weights, form, strength):
    """What is written into the file on the disk shows in the patches, even after sampling with them."""
    file, _ = forms(form)
    accelerated = apply_delta(small_unet, delta_name=file.name, strength=strength)
    before = weights.loaded(accelerated)
    held = [tensor for (entry,) in accelerated.patches.values() for tensor in tensors_in(entry[1])]
    assert not all(torch.equal(tensor, torch.full_like(tensor, 0.5)) for tensor in held)
    overwrite(file, torch.tensor(0.5).half())
    assert all(torch.equal(tensor, torch.full_like(tensor, 0.5)) for tensor in held)
    after = weights.loaded(accelerated)
    assert not any(torch.equal(after[key], weight) for key, weight in before.items())


def overwrite(path: Path, number: torch.Tensor):
    """Put one float16 number all over a file's data, in place."""
    with path.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start)
        file.write(number.view(1).view(torch.uint8).numpy().tobytes() * ((path.stat().st_size - start) // 2))


@pytest.mark.parametrize("form", FORMS)
def test_the_files_numbers_are_not_changed_by_sampling_with_them(small_unet, apply_delta, forms, weights, form):
    file, _ = forms(form)
    content = file.read_bytes()
    accelerated = apply_delta(small_unet, delta_name=file.name, strength=0.7)
    once, again = weights.loaded(accelerated), weights.loaded(accelerated)
    assert all(torch.equal(again[key], weight) for key, weight in once.items())
    assert file.read_bytes() == content


class TestInpaintingBase:
    """A base with nine input channels: the other tensors fit."""

    @pytest.fixture
    def base(self, comfyui, unet_file):
        import comfy.sd

        tensors = load_file(str(unet_file))
        first = tensors["input_blocks.0.0.weight"]
        tensors["input_blocks.0.0.weight"] = torch.cat([first, torch.zeros(320, 5, 3, 3).half()], dim=1)
        file = comfyui.base / "inpainting.safetensors"
        save_file(tensors, str(file))
        model = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.float32})
        assert model.model.model_config.unet_config["in_channels"] == 9
        return model

    @pytest.mark.parametrize("form", ["diffusers", "ComfyUI", "diff, ComfyUI", "diff, diffusers"])
    def test_refused_by_the_tensors_name(self, base, apply_delta, forms, form):
        name = {"diffusers": "conv_in.weight", "ComfyUI": INPUT}.get(form)
        name = name or {"diff, ComfyUI": as_diff(INPUT), "diff, diffusers": "conv_in.diff"}[form]
        with pytest.raises(
            ValueError, match="expected 320x9x3x3 as in the model: this is an inpainting model"
        ) as caught:
            apply_delta(base, delta_name=forms(form)[0].name)
        assert f"tensor {name} has shape 320x4x3x3" in str(caught.value)
        assert "turn on partial to leave that tensor out" in str(caught.value)

    @pytest.mark.parametrize("form", ["diffusers", "diff, ComfyUI"])
    def test_partial_leaves_that_tensor_out_and_says_so(self, comfyui, base, forms, weights, form):
        file, delta = forms(form)
        node = comfyui.nodes["PeRFlowApplyDelta"]
        output = node.execute(model=base, delta_name=file.name, partial=True, **DEFAULTS)
        before, found = weights.loaded(base), weights.loaded(output.result[0])
        weights.assert_sum(found, before, delta | {INPUT: torch.zeros(())})
        text = output.ui["text"][0]
        applied, left_out = text.splitlines()[-2:]
        assert applied == f"Applied: {len(delta) - 1} of {len(delta)} tensors."
        assert left_out == f"Left out, being of another shape: 1 tensor ({INPUT})."

    def test_it_samples(self, base, apply_delta, forms, schedule):
        import comfy.sample
        import comfy.samplers
        from analytic_model import conditioning

        model = apply_delta(base, delta_name=forms("diffusers")[0].name, partial=True)
        noise, euler = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), "euler"
        prompts, latent = (conditioning(0.1), conditioning(0.2)), torch.zeros_like(noise)
        sampler = comfy.samplers.sampler_object(euler)
        out = comfy.sample.sample_custom(
            model, noise, 2.0, sampler, schedule(model), *prompts, latent, disable_pbar=True
        )
        assert out.isfinite().all()
