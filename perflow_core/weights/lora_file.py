"""Files that LoRA loaders read: the names of their tensors, and the metadata of a delta."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

FORMAT_VERSION = "1"
UP, DOWN, ALPHA = ".lora_up.weight", ".lora_down.weight", ".alpha"
PEFT_UP, PEFT_DOWN = ".lora_B.default.weight", ".lora_A.default.weight"
PAIRS = (  # how the names of up and down end in the files of different trainers, of which a layer has one
    (UP, DOWN),
    (".lora_B.weight", ".lora_A.weight"),
    (PEFT_UP, PEFT_DOWN),
    (".lora.up.weight", ".lora.down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
)
# What whole differences of a weight and of a bias are called; of two for one weight ComfyUI takes the first.
WHOLE_WEIGHT, WHOLE_BIAS = (".diff", ".w_norm"), (".diff_b", ".b_norm")


def lora_name(layer: str) -> str:
    """The name of a diffusers UNet's layer in LoRA files, as every loader reads it: lora_unet_conv_in."""
    return f"lora_unet_{layer.replace('.', '_')}"


def lora_names(layer: str) -> list[str]:
    """The names that LoRA files have for a layer, or a tensor that is none's, of ComfyUI's `diffusion_model`."""
    return [lora_name(layer), f"diffusion_model.{layer}"]


def whole_name(key: str) -> str:
    """The name of a whole difference of a weight: x.weight -> x.diff, x.bias -> x.diff_b, other -> other.diff."""
    module, _, kind = key.rpartition(".")
    return {"weight": f"{module}.diff", "bias": f"{module}.diff_b"}.get(kind, f"{key}.diff")


def lora_pair(layer: str, up: Tensor, down: Tensor) -> dict[str, Tensor]:
    """The tensors of dW = up down for one layer, on the CPU in the dtype they have.

    up: [out, r], or [out, r, 1, ...]; down: [r, in], or [r, in, ...] of a convolution. Loaders multiply by alpha / r,
    which is 1 here.
    """
    if up.ndim == 2:
        up = up.reshape(*up.shape, *(1,) * (down.ndim - 2))
    alpha = torch.tensor(float(down.shape[0]))
    return {layer + UP: up.cpu().contiguous(), layer + DOWN: down.cpu().contiguous(), layer + ALPHA: alpha}


def lora_of_peft(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The LoRA file of a diffusers UNet with an adapter of peft's, called "default".

    weights: the UNet's by name, of which all that are not the adapter's are left out.
    """
    tensors: dict[str, Tensor] = {}
    for name, down in weights.items():
        if name.endswith(PEFT_DOWN):
            layer = name.removesuffix(PEFT_DOWN)
            tensors |= lora_pair(lora_name(layer), weights[layer + PEFT_UP].to(dtype), down.to(dtype))
    return tensors


def ranks(tensors: Mapping[str, Tensor]) -> list[int]:
    """The rank of each pair in a LoRA file."""
    return [tensor.shape[0] for name, tensor in tensors.items() if name.endswith(DOWN)]


def delta_metadata(ranks: Collection[int], **facts: str) -> dict[str, str]:
    """The metadata of a delta; ranks: of its pairs, none where it is whole; facts: prediction_type, windows, ..."""
    lowest, highest = min(ranks, default=0), max(ranks, default=0)
    rank = "full" if not ranks else str(highest) if lowest == highest else f"{lowest}-{highest}"
    return {"format": "perflow-delta", "format_version": FORMAT_VERSION, "rank": rank} | facts
