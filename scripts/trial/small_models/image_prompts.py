"""What an image prompt needs: CLIP's image encoders and IP-Adapters for the small UNets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch

from .random_tensors import Shapes, find_comfyui, random, shapes_of
from .sparse_files import Tensors, save
from .unets import Config

_TOKENS = 4  # what an image becomes for the attention
_LAYERS = {768: 16, 2048: 70}  # cross-attention layers of the full SD1.5 and SDXL, by the width of their text


def make_clip_vision(path: Path, seed: int = 0, kind: Literal["h", "vitl"] = "h") -> Path:
    """Write the image encoder CLIP ViT-H/14 or ViT-L/14 (fp16, 2 of its 32 or 24 layers with weights)."""
    return save(clip_vision(kind, seed), path)


def clip_vision(kind: Literal["h", "vitl"], seed: int) -> Tensors:
    find_comfyui()
    import comfy.clip_vision
    import comfy.ops
    from comfy.clip_model import CLIPVisionModelProjection

    folder = Path(comfy.clip_vision.__file__).parent
    config = json.loads((folder / f"clip_vision_config_{kind}.json").read_text(encoding="utf-8"))
    shapes = shapes_of(lambda: CLIPVisionModelProjection(config, torch.float32, "meta", comfy.ops.disable_weight_init))
    return random(shapes, seed, layers=2)


def make_ip_adapter(path: Path, preset: Config, seed: int = 8) -> Path:
    """Write an IP-Adapter for images seen by ViT-H (fp16).

    It has the keys of the published file, one pair for every cross-attention layer of the full UNet, in the width
    of the small one.
    """
    context = preset["context_dim"]
    shapes: Shapes = {
        "image_proj.proj.weight": torch.Size([_TOKENS * context, 1024]),
        "image_proj.proj.bias": torch.Size([_TOKENS * context]),
        "image_proj.norm.weight": torch.Size([context]),
        "image_proj.norm.bias": torch.Size([context]),
    }
    for layer in range(_LAYERS[context]):
        for kind in ("k", "v"):
            # Only odd numbers: the self-attention layers between them have no weights.
            shapes[f"ip_adapter.{2 * layer + 1}.to_{kind}_ip.weight"] = torch.Size([preset["model_channels"], context])
    return save(random(shapes, seed), path)
