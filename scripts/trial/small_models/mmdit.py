"""The transformer of SD3 (MMDiT), two blocks of it."""

from __future__ import annotations

from typing import Any

import torch

from .random_tensors import find_comfyui, generator, random, shapes_of
from .sparse_files import Tensors

# ComfyUI tells SD3 by 16 channels, and takes the depth from the width: 64 channels a block.
_DEPTH, _CHANNELS, _PATCH = 2, 16, 2
_WIDTH, _TEXT, _SIDE = 64 * _DEPTH, 4096, 192
_CONFIG: dict[str, Any] = dict(
    input_size=None,
    patch_size=_PATCH,
    in_channels=_CHANNELS,
    depth=_DEPTH,
    adm_in_channels=2048,
    context_embedder_config=dict(target="torch.nn.Linear", params=dict(in_features=_TEXT, out_features=_WIDTH)),
    num_patches=_SIDE**2,
    pos_embed_max_size=_SIDE,
    pos_embed_scaling_factor=None,
)


def mmdit(seed: int) -> Tensors:
    find_comfyui()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

    tensors = random(shapes_of(lambda: MMDiT(**_CONFIG, device="meta", operations=comfy.ops.disable_weight_init)), seed)
    tensors["pos_embed"] = _smooth_field(seed)
    _predict_velocity(tensors)
    return tensors


def _smooth_field(seed: int) -> torch.Tensor:
    """A few slow waves over the picture for every channel: [1, places, width]."""
    random = generator("pos_embed", seed)
    row, column = torch.meshgrid(torch.arange(_SIDE), torch.arange(_SIDE), indexing="ij")
    frequency = torch.randn(2, _WIDTH, generator=random) * 0.3
    phase = torch.rand(_WIDTH, generator=random) * 6.28
    field = torch.sin(row[..., None] * frequency[0] + column[..., None] * frequency[1] + phase)
    return (0.5 * field).reshape(1, _SIDE**2, _WIDTH).half()


def _predict_velocity(tensors: Tensors) -> None:
    """Make the output mostly the detail of the input, as in the UNets.

    A patch's numbers enter twice, with both signs, so that the last norm finds them centred; the output layer takes
    the difference.
    """
    numbers = _CHANNELS * _PATCH**2
    enter = torch.eye(numbers)
    leave = enter.view(_CHANNELS, _PATCH**2, numbers).transpose(0, 1).reshape(numbers, numbers)  # patch first
    mean = leave.view(_PATCH**2, _CHANNELS, numbers).mean(0, keepdim=True).expand(_PATCH**2, -1, -1)
    leave = leave - 0.6 * mean.reshape(numbers, numbers)
    tensors["x_embedder.proj.weight"] = torch.cat([enter, -enter]).view(_WIDTH, _CHANNELS, _PATCH, _PATCH).half()
    tensors["final_layer.linear.weight"] = (0.5 * torch.cat([leave, -leave], 1)).half()
    for name, tensor in tensors.items():
        if "adaLN_modulation.1.weight" in name:
            tensor *= 0.2


def lora_layers() -> dict[str, tuple[int, int]]:
    """Layers that a LoRA of PCM's training has, by diffusers' names: (out, in)."""
    layers = {"proj_out": (_CHANNELS * _PATCH**2, _WIDTH)}
    for block in range(_DEPTH):
        name = f"transformer_blocks.{block}"
        for layer in ("to_q", "to_k", "to_v", "to_out.0"):
            layers[f"{name}.attn.{layer}"] = (_WIDTH, _WIDTH)
        layers[f"{name}.ff.net.0.proj"] = (4 * _WIDTH, _WIDTH)
        layers[f"{name}.ff.net.2"] = (_WIDTH, 4 * _WIDTH)
    return layers
