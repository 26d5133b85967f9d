"""Hunyuan3D 2 in one file: a small transformer, the shape VAE in its real size, an image encoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from .image_prompts import clip_vision
from .random_tensors import find_comfyui, random, shapes_of
from .sparse_files import Tensors, save, zeros

# ComfyUI takes 16 heads for granted, and 8 double blocks for the mini model.
_CONFIG: dict[str, Any] = dict(hidden_size=256, depth=2, depth_single_blocks=2, context_in_dim=1024)
_ENCODER = "conditioner.main_image_encoder.model."


def make_hunyuan3d(path: Path, seed: int = 23) -> Path:
    """Write a checkpoint (fp16).

    Its image encoder is CLIP ViT-L/14. The published file has DINOv2 giant, which ComfyUI knows in one size: 1.1
    billion weights, which take long on a CPU. The transformer's width of context follows.
    """
    encoder = {_ENCODER + name: tensor for name, tensor in clip_vision("vitl", seed).items()}
    return save(_transformer(seed) | _shape_vae(seed) | encoder, path)


def _transformer(seed: int) -> Tensors:
    find_comfyui()
    import comfy.ops
    from comfy.ldm.hunyuan3d.model import Hunyuan3Dv2

    operations = comfy.ops.disable_weight_init
    shapes = shapes_of(lambda: Hunyuan3Dv2(**_CONFIG, device="meta", operations=operations), "model.")
    tensors = random(shapes, seed)
    for name in [name for name in tensors if "_norm." in name]:
        # Published as "scale"; newer ComfyUIs have another name for it.
        del tensors[name]
        tensors[re.sub(r"\.\w+$", ".scale", name)] = torch.ones(shapes[name]).half()
    return tensors


def _shape_vae(seed: int) -> Tensors:
    find_comfyui()
    from comfy.ldm.hunyuan3d.vae import ShapeVAE

    shapes = shapes_of(ShapeVAE, "vae.")
    encoder = {name: zeros(shape) for name, shape in shapes.items() if ".encoder." in name}  # nothing uses it
    tensors = encoder | random({name: shape for name, shape in shapes.items() if name not in encoder}, seed, layers=1)
    place = tensors["vae.geo_decoder.query_proj.weight"]
    place[:, 3:] = 0  # of a place and its waves only the place, so that the surface is smooth
    place *= 4
    return tensors
