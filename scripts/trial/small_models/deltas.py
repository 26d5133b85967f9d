"""PeRFlow deltas: a difference for every tensor of a UNet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from .random_tensors import generator
from .sparse_files import save
from .unets import diffusers_names, read_unet


def make_delta(
    path: Path,
    checkpoint: Path,
    layout: Literal["diffusers", "comfyui"] = "diffusers",
    scale: float = 0.05,
    seed: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a difference for every UNet tensor of a checkpoint, `scale` times as large as the tensor itself."""
    unet = read_unet(checkpoint)
    names = diffusers_names(unet) if layout == "diffusers" else {name: f"diffusion_model.{name}" for name in unet}
    delta = {}
    for name, weight in unet.items():
        noise = torch.randn(weight.shape, generator=generator(name, seed))
        size = max(weight.float().std().item() if weight.numel() > 1 else 0.0, 0.02)
        delta[names[name]] = (noise * (scale * size)).half()
    return save(delta, path, metadata)
