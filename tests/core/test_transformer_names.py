"""Weights of diffusers' transformers by their authors' names; test_flow_models.py loads them in ComfyUI."""

import pytest
import torch

from perflow_core.weights.transformer_names import FLUX, SD3, WAN, Z_IMAGE, TransformerNames


def adapter(layer: str, out: int, inner: int, rank: int = 2) -> dict[str, torch.Tensor]:
    """As peft has it in a state dict."""
    return {
        f"{layer}.lora_A.default.weight": torch.randn(rank, inner),
        f"{layer}.lora_B.default.weight": torch.randn(out, rank),
    }


def product(tensors: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    up, down = (tensors[f"diffusion_model.{layer}.lora_{half}.weight"] for half in ("up", "down"))
    assert tensors[f"diffusion_model.{layer}.alpha"] == len(down)
    return up @ down


def wanted(weights: dict[str, torch.Tensor], *layers: str) -> torch.Tensor:
    """The rows of the layers' differences, one below the other."""
    halves = [[weights[f"{layer}.lora_{half}.default.weight"] for half in "BA"] for layer in layers]
    return torch.cat([up @ down for up, down in halves])


def test_adapters_of_layers_that_are_one():
    """In the authors' order of rows, whatever that of the state dict is."""
    block = "single_transformer_blocks.12"
    parts = [f"{block}.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    weights = adapter(parts[3], 20, 6) | adapter(parts[1], 5, 6) | adapter(parts[0], 5, 6) | adapter(parts[2], 5, 6)
    weights |= adapter(f"{block}.proj_out", 6, 25) | {f"{block}.proj_out.base_layer.weight": torch.ones(6, 25)}
    tensors = TransformerNames(FLUX).low_rank(weights, torch.float32)
    assert {key.split(".lora_")[0].split(".alpha")[0] for key in tensors} == {
        "diffusion_model.single_blocks.12.linear1", "diffusion_model.single_blocks.12.linear2",
    }  # fmt: skip
    assert torch.allclose(product(tensors, "single_blocks.12.linear1"), wanted(weights, *parts))
    assert torch.equal(product(tensors, "single_blocks.12.linear2"), wanted(weights, f"{block}.proj_out"))


def test_half_of_a_layer_is_an_error():
    with pytest.raises(ValueError, match=r"joint_blocks\.3\.x_block\.attn\.qkv is made of .*to_k, .* not all there"):
        TransformerNames(SD3).low_rank(adapter("transformer_blocks.3.attn.to_q", 4, 4), torch.float32)


def test_scale_and_shift_change_places():
    names = TransformerNames(SD3, frozenset({"norm_out.linear", "transformer_blocks.1.norm1_context.linear"}))
    rows = torch.arange(6.0)[:, None]
    found = names.whole({"norm_out.linear.weight": rows, "transformer_blocks.0.norm1_context.linear.weight": rows})
    assert found["diffusion_model.final_layer.adaLN_modulation.1.weight"].flatten().tolist() == [3, 4, 5, 0, 1, 2]
    assert torch.equal(found["diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.weight"], rows)
    weights = adapter("transformer_blocks.1.norm1_context.linear", 6, 4)
    dW = product(names.low_rank(weights, torch.float32), "joint_blocks.1.context_block.adaLN_modulation.1")
    assert torch.equal(dW, wanted(weights, "transformer_blocks.1.norm1_context.linear").roll(3, dims=0))


def test_whole_weights():
    """Layers, what is no layer's, and what has one name."""
    of_layers = {f"layers.0.attention.to_{part}.weight": torch.full((2, 3), float(i)) for i, part in enumerate("qkv")}
    one = {"cap_pad_token": torch.ones(1, 3), "layers.0.feed_forward.w1.weight": torch.ones(4, 3)}
    found = TransformerNames(Z_IMAGE).whole(of_layers | one)
    assert found["diffusion_model.layers.0.attention.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert found.keys() >= {"diffusion_model.cap_pad_token", "diffusion_model.layers.0.feed_forward.w1.weight"}
    tables = {"scale_shift_table": torch.ones(1, 2, 3), "blocks.7.scale_shift_table": torch.ones(1, 6, 3)}
    found = TransformerNames(WAN).whole(tables | {"blocks.7.norm2.bias": torch.ones(3)})
    assert set(found) == {
        "diffusion_model.head.modulation", "diffusion_model.blocks.7.modulation", "diffusion_model.blocks.7.norm3.bias",
    }  # fmt: skip
