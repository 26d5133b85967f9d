"""Reading a weight difference: names, fit, and what the file says of itself."""

import pytest
import torch

from perflow_core.delta import DeltaError, read_delta

MODEL = {
    "diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
    "diffusion_model.input_blocks.1.1.attn2.to_k.weight": (8, 768),
    "diffusion_model.out.0.weight": (4,),
}
DIFFUSERS = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "down_blocks.0.attn2.to_k.weight": "input_blocks.1.1.attn2.to_k.weight",
    "conv_norm_out.weight": "out.0.weight",
}


def tensors(names, value=0.01):
    return {name: torch.full(shape, value) for name, shape in zip(names, MODEL.values(), strict=True)}


def read(state, metadata=None, model=None):
    return read_delta("some.safetensors", state, metadata, model or MODEL, DIFFUSERS)


@pytest.mark.parametrize(
    "names",
    [
        list(DIFFUSERS),
        ["unet." + name for name in DIFFUSERS],
        list(MODEL),
        ["model." + name for name in MODEL],
        [name.removeprefix("diffusion_model.") for name in MODEL],
    ],
    ids=["diffusers", "diffusers with prefix", "ComfyUI", "checkpoint", "bare"],
)
def test_every_layout_of_names(names):
    state = tensors(names)
    delta = read(state)
    assert list(delta.tensors) == list(MODEL)
    assert delta.architecture == "SD1.5"
    for tensor, original in zip(delta.tensors.values(), state.values(), strict=True):
        assert tensor is original  # not cast, scaled or copied


def test_metadata():
    assert read(tensors(DIFFUSERS)).prediction_type is None
    delta = read(tensors(DIFFUSERS), {"prediction_type": "velocity", "windows": "8"})
    assert (delta.prediction_type, delta.windows) == ("velocity", 8)
    assert read(tensors(DIFFUSERS), {"prediction_type": "epsilon"}).prediction_type == "diff_eps"
    with pytest.raises(DeltaError, match='says prediction_type "v", expected one of diff_eps, ddim_eps, velocity'):
        read(tensors(DIFFUSERS), {"prediction_type": "v"})
    with pytest.raises(DeltaError, match='says windows "four", expected a whole number'):
        read(tensors(DIFFUSERS), {"windows": "four"})


def test_another_architecture_is_named():
    state = tensors(DIFFUSERS)
    state["down_blocks.0.attn2.to_k.weight"] = torch.zeros(8, 2048)
    with pytest.raises(DeltaError, match=r"some\.safetensors is made for SDXL, expected .* this SD1\.5 model: choose"):
        read(state)


def test_unknown_missing_and_misshapen_tensors_are_named():
    with pytest.raises(DeltaError, match=r"has 1 tensor \(lora_up\), which the model does not have"):
        read(tensors(DIFFUSERS) | {"lora_up": torch.zeros(1)})
    state = tensors(DIFFUSERS)
    del state["conv_in.weight"]
    with pytest.raises(DeltaError, match=r"has 2 tensors and lacks 1 tensor \(diffusion_model\.input_blocks\.0\.0"):
        read(state)
    state = tensors(DIFFUSERS) | {"conv_in.weight": torch.zeros(4, 9, 3, 3)}
    with pytest.raises(DeltaError, match=r"conv_in\.weight has shape 4x9x3x3, expected 4x4x3x3"):
        read(state)


def test_full_model_is_not_a_difference():
    with pytest.raises(DeltaError, match=r"is a full model \(its norm weights conv_norm_out\.weight are near 1\)"):
        read(tensors(DIFFUSERS, value=1.0))
