"""TripoSplat's decoder, in its real size: a picture's latent to Gaussian splats."""

from __future__ import annotations

from pathlib import Path

import torch

from .random_tensors import find_comfyui, random, shapes_of
from .sparse_files import save, save_name


def make_triposplat_decoder(path: Path, seed: int = 25) -> Path:
    """Write the decoder (fp16, the first of its blocks with weights); where ComfyUI knows none, only its name."""
    find_comfyui()
    try:
        from comfy.ldm.triposplat.vae import OctreeGaussianDecoder
    except ModuleNotFoundError:
        return save_name(path)
    shapes = shapes_of(OctreeGaussianDecoder)
    tensors = random({name: shape for name, shape in shapes.items() if len(shape)}, seed, layers=1)
    tensors["gs.base_offset_scale"] = torch.tensor(0.05).expm1().log().half()
    return save(tensors, path)
