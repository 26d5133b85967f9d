"""A PeRFlow delta for the narrow Wonder3D of trial.small_models."""

from pathlib import Path

import torch
from comfy.utils import unet_to_diffusers
from trial.small_models.random_tensors import generator
from trial.small_models.sparse_files import save
from trial.small_models.unets import unet
from trial.small_models.wonder3d import WONDER3D_SMALL


def make_wonder3d_delta(path: Path, seed: int = 22, scale: float = 0.05) -> Path:
    """Write an SD1.5 delta of these widths: 686 tensors, the input layer's with four channels (fp16)."""
    sd15 = {name: value for name, value in WONDER3D_SMALL.items() if name not in ("num_classes", "adm_in_channels")}
    tensors = unet(sd15 | {"in_channels": 4}, seed)
    delta = {}
    for theirs, ours in unet_to_diffusers(sd15).items():
        if ours in tensors:
            size = scale * max(float(tensors[ours].float().std()), 0.02)
            delta[theirs] = (torch.randn(tensors[ours].shape, generator=generator(ours, seed)) * size).half()
    return save(delta, path)
