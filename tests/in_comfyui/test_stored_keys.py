"""State dicts have keys that are no weights: scales, notes of a format, what a loader counts its memory by."""

import pytest
import torch
from safetensors.torch import load_file

NODES = {
    "PeRFlowModelSampling": {"prediction_type": "auto", "windows": 4, "align_steps": True},
    "InstaFlowModelSampling": {"family": "rectified_flow", "align_steps": True},
    "PCMPhaseSchedule": {
        "pcm_timesteps": 50,
        "steps": 4,
        "grid": "trailing",
        "phases": 4,
        "denoise": 1.0,
        "end": "zero",
    },
}


@pytest.fixture
def with_keys(small_unet):
    """The small UNet, every linear layer with keys of its own in the state dict and with a parameter more."""

    def add(layer, stored, prefix, _):
        stored[f"{prefix}weight_s_rel"] = torch.ones(4)
        stored[f"{prefix}comfy_quant"] = torch.zeros(8, dtype=torch.uint8)
        stored[f"{prefix}temp.weight"] = torch.empty(2, 2, device="meta")
        stored[f"{prefix}comfy_attention.config"] = torch.zeros(8, dtype=torch.uint8)

    for layer in list(small_unet.model.diffusion_model.modules()):
        if isinstance(layer, torch.nn.Linear):
            layer.register_state_dict_post_hook(add)
            layer.register_parameter("input_scale", torch.nn.Parameter(torch.ones(()), requires_grad=False))
    return small_unet


@pytest.fixture
def names(unet_file):
    """The UNet's own weights, as its file has them."""
    return {f"diffusion_model.{name.removeprefix('model.diffusion_model.')}" for name in load_file(unet_file)}


def test_the_delta_is_added_to_the_weights_alone(with_keys, names, apply_delta):
    assert set(apply_delta(with_keys).patches) == names


@pytest.mark.parametrize("node", NODES)
def test_the_family_is_told(run, with_keys, node):
    assert run(node, model=with_keys, **NODES[node])


@pytest.mark.parametrize("rank", [0, 4])
def test_the_weights_alone_are_extracted(with_keys, names, run, apply_delta, rank):
    inputs = {"filename_prefix": "keys", "rank": rank, "energy": 0.0, "prediction_type": "auto", "windows": 4}
    (path,) = run("PeRFlowExtractDelta", model_perflow=apply_delta(with_keys), model_base=with_keys, **inputs)
    found = load_file(path)
    assert not [name for name in found if "scale" in name or "quant" in name or "temp" in name or "config" in name]
    assert rank or len(found) == len(names)


def test_it_is_trained(with_keys, train):
    path, _, _ = train(with_keys, steps=1)
    assert not [name for name in load_file(path) if "scale" in name or "temp" in name or "config" in name]


def test_packed_numbers_that_nothing_can_read(small_unet, run, apply_delta):
    """Of other packs' loaders that neither patch them themselves nor offer to read them: each node says so."""
    layer = small_unet.model.diffusion_model.time_embed[0]
    packed = torch.nn.Parameter(torch.zeros(layer.weight.shape, dtype=torch.uint8), requires_grad=False)
    layer.weight = packed
    sentence = r"time_embed\.0\.weight is stored as torch\.uint8, {}, expected fp16, [^\n]+\.$"
    with pytest.raises(ValueError, match=sentence.format("to which nothing can be added")):
        apply_delta(small_unet)
    inputs = {"filename_prefix": "keys", "rank": 0, "energy": 0.0, "prediction_type": "auto", "windows": 4}
    with pytest.raises(ValueError, match=sentence.format("and its loader offers no way to read it")):
        run("PeRFlowExtractDelta", model_perflow=small_unet, model_base=small_unet, **inputs)
