"""Apply PeRFlow Delta on a small real UNet, through the stock loaders: weights, mixing with LoRAs, errors."""

import re
from pathlib import Path

import pytest
import torch
from model_folders import same_model_folders

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.5])
def test_weights_are_base_plus_strength_times_delta(small_unet, apply_delta, delta_file, strength, weights):
    base = weights.loaded(small_unet)
    found = weights.loaded(apply_delta(small_unet, strength=strength))
    weights.assert_sum(found, base, weights.delta_of(small_unet, delta_file), strength)
    after = weights.loaded(small_unet)
    assert all(torch.equal(after[key], weight) for key, weight in base.items())


def test_comfyui_layout(comfyui, small_unet, unet_file, apply_delta, delta_file, weights):
    from trial import small_models

    folder = delta_file.parent
    file = small_models.make_delta(folder / "comfyui-layout.safetensors", unet_file, layout="comfyui")
    found = weights.loaded(apply_delta(small_unet, delta_name=file.name))
    expected = weights.loaded(apply_delta(small_unet))
    assert all(torch.equal(found[key], weight) for key, weight in expected.items())


def test_what_the_file_says_and_what_the_node_says(small_unet, unet_file, apply_delta, delta_file):
    from trial import small_models

    metadata = {"prediction_type": "ddim_eps", "windows": "8"}
    file = small_models.make_delta(delta_file.parent / "says.safetensors", unet_file, metadata=metadata)

    def sampling(**inputs):
        found = apply_delta(small_unet, **inputs).get_model_object("model_sampling")
        return found.prediction_type, found.chord.K

    assert sampling() == ("diff_eps", 4)  # SD1.5's default
    assert sampling(delta_name=file.name) == ("ddim_eps", 8)
    assert sampling(delta_name=file.name, prediction_type="velocity", windows=2) == ("velocity", 2)


def test_strength_zero_is_the_model_as_it_came(small_unet, apply_delta):
    assert apply_delta(small_unet, strength=0.0) is small_unet


def test_the_model_given_is_not_changed(small_unet, apply_delta):
    from comfy.model_sampling import EPS

    sampling = small_unet.get_model_object("model_sampling")
    apply_delta(small_unet)
    assert small_unet.get_model_object("model_sampling") is sampling
    assert isinstance(sampling, EPS)
    assert not small_unet.patches
    assert not small_unet.wrappers.get("outer_sample")


@pytest.mark.parametrize("lora_first", [True, False])
def test_lora_before_and_after(comfyui, run, small_unet, unet_file, apply_delta, delta_file, lora_first, weights):
    from trial import small_models

    lora = small_models.make_lora(comfyui.base / "models" / "loras" / "tiny-lora.safetensors", unet_file)
    base = weights.loaded(small_unet)

    def apply_lora(model):
        return run("LoraLoaderModelOnly", model=model, lora_name=lora.name, strength_model=0.8)[0]

    lora_alone = weights.loaded(apply_lora(small_unet))
    both = apply_delta(apply_lora(small_unet)) if lora_first else apply_lora(apply_delta(small_unet))
    delta = weights.delta_of(small_unet, delta_file)
    expected = {key: lora_alone[key] - base[key] + delta[key] for key in base}
    found = weights.loaded(both)
    changed = [key for key in base if not torch.equal(lora_alone[key], base[key])]
    assert len(changed) >= 20  # the LoRA is really there
    for key, weight in base.items():
        assert torch.allclose(found[key], weight + expected[key], rtol=1e-5, atol=1e-6), key


def test_two_deltas_keep_one_wrapper_and_the_base_table(small_unet, apply_delta):
    once = apply_delta(small_unet)
    twice = apply_delta(once)
    assert len(twice.get_wrappers("outer_sample", "perflow")) == 1
    a, b = (model.get_model_object("model_sampling") for model in (once, twice))
    assert torch.equal(a.sigmas, b.sigmas)


@pytest.mark.parametrize(
    ("node", "file_input"), [("PeRFlowApplyDelta", "delta_name"), ("PeRFlowTrainDelta", "resume_from")]
)
def test_a_file_replaced_under_its_name_is_noticed(delta_file, node, file_input):
    """By ComfyUI's own question whether a node has to run again."""
    import asyncio
    import os
    import shutil

    import execution
    from comfy_execution.graph import DynamicPrompt

    file = shutil.copy(delta_file, delta_file.parent / "replaced.safetensors")
    inputs = {file_input: file.name, "model": ["0", 0], "strength": 1.0}

    def changed():
        prompt = {"0": {"class_type": "UNETLoader", "inputs": {}}, "1": {"class_type": node, "inputs": dict(inputs)}}
        return asyncio.run(execution.IsChangedCache("prompt", DynamicPrompt(prompt), {}).get("1"))

    first = changed()
    assert changed() == first
    os.utime(file, ns=(1, 1))
    second = changed()
    assert second != first
    file.unlink()
    assert changed() not in (first, second)
    assert changed() == changed()


def test_another_strength_does_not_read_the_file_again(comfyui, small_unet, apply_delta, delta_file, monkeypatch):
    """What was found in it is kept, and no tensor; a file of another time is read."""
    import os
    import shutil

    file = shutil.copy(delta_file, delta_file.parent / "strengths.safetensors")
    read = []
    aminmax = torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda tensor: (read.append(tensor.shape), aminmax(tensor))[1])

    def reads(strength):
        read.clear()
        apply_delta(small_unet, delta_name=file.name, strength=strength)
        return len(read)

    whole = reads(1.0)
    assert whole > 100
    assert reads(0.5) == reads(2.0) == 0
    os.utime(file, ns=(1, 1))
    assert reads(0.5) == whole
    apply_delta(small_unet)  # another file
    assert reads(0.5) == whole
    kept = comfyui.module("nodes.comfyui.weights.delta_patches").largest_numbers
    assert kept.cache_info().currsize == 1
    stamp = comfyui.module("nodes.comfyui.folders").stamp(str(file))
    assert {type(value) for value in kept(stamp).values()} == {float}


def test_later_inputs_may_be_left_out(comfyui):
    """Graphs for the API that were made without them run."""
    inputs = comfyui.nodes["PeRFlowApplyDelta"].GET_NODE_INFO_V1()["input"]
    assert list(inputs["optional"]) == ["partial", "edges"]


@pytest.fixture
def unharmed(small_unet, weights):
    """Fails when the base model's weights or sampling changed."""
    before, sampling = weights.loaded(small_unet), small_unet.get_model_object("model_sampling")
    yield
    after = weights.loaded(small_unet)
    assert all(torch.equal(after[key], weight) for key, weight in before.items())
    assert small_unet.get_model_object("model_sampling") is sampling


def test_the_folder_is_there(comfyui):
    """It is made when the pack is loaded, so that a user finds where files go."""
    import folder_paths

    own, *_ = folder_paths.get_folder_paths("perflow")
    assert Path(own) == Path(folder_paths.models_dir) / "perflow"
    assert Path(own).is_dir()


def test_without_a_file_the_list_says_what_to_do(comfyui, small_unet, apply_delta, tmp_path):
    import folder_paths

    with same_model_folders():
        folder_paths.folder_names_and_paths["perflow"][0][:] = [str(tmp_path)]
        folder_paths.filename_list_cache.clear()
        kind, details = comfyui.nodes["PeRFlowApplyDelta"].GET_NODE_INFO_V1()["input"]["required"]["delta_name"]
        (entry,) = kind if isinstance(kind, list) else details["options"]  # the first in older ComfyUIs
        assert entry == "no delta yet: put one into models/perflow, press R"
        with pytest.raises(
            FileNotFoundError, match=rf"no delta file in {re.escape(str(tmp_path))} yet: put a \.safete"
        ):
            apply_delta(small_unet, delta_name=entry)


@pytest.mark.usefixtures("unharmed")
class TestErrors:
    def test_missing_file(self, small_unet, apply_delta):
        with pytest.raises(FileNotFoundError, match=r"no delta file gone\.safetensors in .*perflow.*: put it there"):
            apply_delta(small_unet, delta_name="gone.safetensors")

    def test_another_architecture(self, comfyui, small_unet, apply_delta, delta_file):
        from trial import small_models

        sd21 = small_models.make_unet(comfyui.base / "sd21.safetensors", small_models.SD21_SMALL)
        file = small_models.make_delta(delta_file.parent / "sd21-delta.safetensors", sd21)
        with pytest.raises(
            ValueError, match=r"sd21-delta\.safetensors is made for SD2\.x, expected a PeRFlow delta for this SD1\.5"
        ):
            apply_delta(small_unet, delta_name=file.name)

    def test_full_model(self, small_unet, apply_delta, delta_file, unet_file):
        (delta_file.parent / "model.safetensors").write_bytes(unet_file.read_bytes())
        with pytest.raises(ValueError, match=r"model\.safetensors is a full SD1\.5 model"):
            apply_delta(small_unet, delta_name="model.safetensors")

    def test_unreadable_file(self, small_unet, apply_delta, delta_file):
        (delta_file.parent / "page.safetensors").write_text("<!DOCTYPE html><html>Not found</html>")
        with pytest.raises(ValueError, match=r"page\.safetensors \(37 bytes\) cannot be read as .* it is a web page"):
            apply_delta(small_unet, delta_name="page.safetensors")

    def test_truncated_file(self, small_unet, apply_delta, delta_file):
        (delta_file.parent / "cut.safetensors").write_bytes(delta_file.read_bytes()[:-1000])
        with pytest.raises(ValueError, match=r"cut\.safetensors \(\d+ bytes\) cannot be read"):
            apply_delta(small_unet, delta_name="cut.safetensors")
