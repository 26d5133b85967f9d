"""Whether a weight difference fits a model: names, shapes, and what the file says of itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from perflow_core.errors import Problem, shown
from perflow_core.weights.delta_changes import group_by_module, plain_changes
from perflow_core.weights.delta_file import check_is_delta, metadata_prediction_type, metadata_windows
from perflow_core.weights.delta_fit import fit
from perflow_core.weights.unet_layout import UNetLayout
from perflow_core.weights.weights_file import WeightsFileError, by_weight, inspect

MODEL = {
    "diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
    "diffusion_model.input_blocks.1.1.attn2.to_k.weight": (8, 768),
    "diffusion_model.out.0.weight": (4,),
}
DIFFUSERS = ["conv_in.weight", "down_blocks.0.attn2.to_k.weight", "conv_norm_out.weight"]
NAMES = dict(zip(DIFFUSERS, MODEL, strict=True)) | {key.removeprefix("diffusion_model."): key for key in MODEL}
INPAINTING = MODEL | {"diffusion_model.input_blocks.0.0.weight": (4, 9, 3, 3)}


def tensors(names=DIFFUSERS, value=0.01):
    return {name: torch.full(shape, value) for name, shape in zip(names, MODEL.values(), strict=True)}


@pytest.fixture
def file(tmp_path):
    """(tensors, metadata) -> what the file with them is."""

    def write(state, metadata=None, name="some.safetensors"):
        save_file(state, str(tmp_path / name), metadata)
        return inspect(Path(tmp_path / name))

    return write


def read(file, state, model=MODEL, partial=False):
    what = file(state)
    check_is_delta(what, "SD1.5")
    unet = UNetLayout(model, {}, NAMES, {})
    return fit(what, plain_changes(what, state, unet), unet, partial)


@pytest.mark.parametrize(
    "names",
    [
        DIFFUSERS,
        ["unet." + name for name in DIFFUSERS],
        list(MODEL),
        ["model." + name for name in MODEL],
        [name.removeprefix("diffusion_model.") for name in MODEL],
    ],
    ids=["diffusers", "diffusers with prefix", "ComfyUI", "checkpoint", "bare"],
)
def test_every_layout_of_names(file, names):
    state = tensors(names)
    delta = read(file, state)
    assert list(delta.changes) == list(MODEL)
    for change, original in zip(delta.changes.values(), state.values(), strict=True):
        assert next(iter(change.tensors.values())) is original  # not cast, scaled or copied


def test_metadata(file):
    assert metadata_prediction_type(file(tensors())) is None
    assert metadata_windows(file(tensors())) is None
    says = file(tensors(), {"prediction_type": "velocity", "windows": "8"})
    assert (metadata_prediction_type(says), metadata_windows(says)) == ("velocity", 8)
    assert metadata_prediction_type(file(tensors(), {"prediction_type": "epsilon"})) == "diff_eps"
    with pytest.raises(
        WeightsFileError, match='says prediction_type "v", expected one of diff_eps, ddim_eps, velocity'
    ):
        metadata_prediction_type(file(tensors(), {"prediction_type": "v"}))
    for value in ("four", "0", "-4", "5000"):
        with pytest.raises(WeightsFileError, match=f'says windows "{value}", expected a whole number'):
            metadata_windows(file(tensors(), {"windows": value}))


def test_another_architecture_is_named(file):
    state = tensors() | {DIFFUSERS[1]: torch.zeros(8, 2048)}
    with pytest.raises(
        WeightsFileError, match=r"some\.safetensors is made for SDXL, expected .* this SD1\.5 model: choose"
    ):
        read(file, state)


def test_unknown_and_missing_tensors_are_named(file):
    with pytest.raises(WeightsFileError, match=r"has 1 tensor \(extra\), which the model does not have"):
        read(file, tensors() | {"extra": torch.zeros(1)})
    with pytest.raises(WeightsFileError, match=r"has 1 tensor \(extra\), which the model does not have"):
        read(file, tensors() | {"extra": torch.zeros(1)}, partial=True)
    state = tensors()
    del state["conv_in.weight"]
    with pytest.raises(
        WeightsFileError, match=r"has 2 tensors and lacks 1 tensor \(diffusion_model\.input_blocks\.0\.0"
    ):
        read(file, state)
    delta = read(file, state, partial=True)
    assert (delta.left_out, delta.without) == ([], ["diffusion_model.input_blocks.0.0.weight"])


@pytest.mark.parametrize("name", ["n" * 5000, "\x1b[31mred\x00", "a\u202egpj.exe", "line\nline", "\u200b\u200b"])
def test_messages_are_short_and_printable_whatever_the_names(file, name):
    for state in (tensors() | {name: torch.zeros(1)}, tensors() | {f"{name}{i}": torch.zeros(1) for i in range(50)}):
        with pytest.raises(WeightsFileError, match="which the model does not have") as caught:
            read(file, state)
        assert len(str(caught.value)) < 500
        assert str(caught.value).isprintable()
        assert shown(name)[:20] in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 2**63 - 1), (1,) * 10000, (2**31, 0)])
def test_shapes_that_no_model_has(file, shape):
    what = replace(file(tensors()), shapes={"conv_in.weight": shape})
    with pytest.raises(
        WeightsFileError, match=r"tensor conv_in\.weight has shape [^ ]+( .* dimensions\))?, expected one"
    ):
        check_is_delta(what, "SD1.5")


def test_misshapen_tensors_are_named(file):
    state = tensors() | {"conv_norm_out.weight": torch.zeros(5)}
    with pytest.raises(
        WeightsFileError, match=r"conv_norm_out\.weight has shape 5, expected 4 as in the model$"
    ) as caught:
        read(file, state)
    assert caught.value.problem is Problem.OTHER_SHAPE


def test_inpainting_model(file):
    with pytest.raises(WeightsFileError, match=r"has shape 4x4x3x3, expected 4x9x3x3 as in the model$") as caught:
        read(file, tensors(), INPAINTING)
    assert caught.value.problem is Problem.INPAINTING_MODEL
    delta = read(file, tensors(), INPAINTING, partial=True)
    assert (delta.left_out, delta.without) == (["diffusion_model.input_blocks.0.0.weight"], [])
    assert len(delta.changes) == 2


def test_partial_still_needs_something_that_fits(file):
    state = {"conv_norm_out.weight": torch.zeros(5)}
    with pytest.raises(WeightsFileError, match=r"some\.safetensors has no tensor that fits, expected a delta"):
        read(file, state, partial=True)


def test_one_weight_twice(file):
    state = tensors() | {"diffusion_model.out.0.weight": torch.zeros(4)}
    with pytest.raises(
        WeightsFileError, match=r"out\.0\.weight twice, as conv_norm_out\.weight and as diffusion_model\.out"
    ):
        read(file, state)


def test_modules_of_lora_keys(file):
    names = {
        "lora_unet_a": "diffusion_model.a.weight",
        "diffusion_model.a": "diffusion_model.a.weight",
        "b": "x.b.weight",
    }
    keys = ["lora_unet_a.lora_up.weight", "lora_unet_a.alpha", "b_lora.down.weight", "c.diff"]
    modules, unclaimed = group_by_module(keys, names)
    assert modules == {"lora_unet_a": keys[:2], "b": keys[2:3]}
    assert unclaimed == ["c.diff"]
    with pytest.raises(WeightsFileError, match=r"holds the weight diffusion_model\.a\.weight twice"):
        by_weight("some.safetensors", names)
