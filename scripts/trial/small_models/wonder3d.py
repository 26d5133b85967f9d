"""Wonder3D's UNet, narrow but in its real layout and with diffusers' names as it is published."""

from __future__ import annotations

from pathlib import Path

import torch

from .random_tensors import Shapes, find_comfyui, random
from .sparse_files import Tensors, save
from .unets import SD15_LAYOUT, SD15_SMALL, Config, unet

# Stable Diffusion 1.5's layout with 32 channels for 320, the picture's latent as further input, and a class embedding.
WONDER3D_SMALL: Config = SD15_SMALL | SD15_LAYOUT
WONDER3D_SMALL |= dict(in_channels=8, model_channels=32, num_classes="sequential", adm_in_channels=10)
BLOCK = ".attn1.to_q.weight"  # every transformer block has one


def make_wonder3d(path: Path, seed: int = 21) -> Path:
    """Write the UNet (fp16)."""
    return save(wonder3d(seed), path)


def wonder3d(seed: int) -> Tensors:
    """All 802 tensors by diffusers' names."""
    find_comfyui()
    from comfy.utils import unet_to_diffusers

    tensors = unet(WONDER3D_SMALL, seed)
    names = {ours: theirs for theirs, ours in unet_to_diffusers(WONDER3D_SMALL).items() if "add_emb" not in theirs}
    named = {names[ours]: tensor for ours, tensor in tensors.items()}
    shapes: Shapes = {}
    for name, tensor in named.items():
        if name.endswith(BLOCK):
            block, width = name.removesuffix(BLOCK), len(tensor)
            shapes |= {f"{block}.norm_joint_mid.{end}": torch.Size([width]) for end in ("weight", "bias")}
            shapes |= {f"{block}.attn_joint_mid.to_{x}.weight": torch.Size([width, width]) for x in ("q", "k", "v")}
            shapes[f"{block}.attn_joint_mid.to_out.0.weight"] = torch.Size([width, width])
            shapes[f"{block}.attn_joint_mid.to_out.0.bias"] = torch.Size([width])
    return named | random(shapes, seed)
