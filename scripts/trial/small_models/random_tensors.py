"""Random tensors for the shapes of ComfyUI's modules."""

from __future__ import annotations

import math
import os
import re
import sys
import zlib
from collections.abc import Callable

import torch

from .sparse_files import Tensors, zeros

Shapes = dict[str, torch.Size]

SMOOTH = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
# Of CLIP, of OpenCLIP and Hunyuan3D's VAE, of TripoSplat's decoder, of a level of a VAE.
_LAYER = re.compile(r"\b(?:layers|resblocks|blocks|block)\.(\d+)\.")


def shapes_of(build: Callable[[], torch.nn.Module], prefix: str = "") -> Shapes:
    """The names and shapes of a module's tensors, without the memory for them."""
    with torch.device("meta"):
        return {prefix + name: tensor.shape for name, tensor in build().state_dict().items()}


def random(shapes: Shapes, seed: int, layers: int | None = None) -> Tensors:
    """Random tensors (fp16). Layers from the given number on are zeros: they hand on what they get."""
    return {
        name: zeros(shape) if _is_beyond(name, layers) else _random_tensor(name, shape, seed).half()
        for name, shape in shapes.items()
    }


def _is_beyond(name: str, layers: int | None) -> bool:
    found = _LAYER.search(name)
    return layers is not None and found is not None and int(found[1]) >= layers


def _random_tensor(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Weights that keep the size of what passes through; 3x3 kernels blur, so pictures come out smooth."""
    if len(shape) == 1:
        return torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
    blur = shape[2:] == (3, 3)
    noise = torch.randn(shape[:2] if blur else shape, generator=generator(name, seed))
    noise /= math.sqrt(shape[1])
    return noise[:, :, None, None] * SMOOTH if blur else noise


def generator(name: str, seed: int) -> torch.Generator:
    """Every tensor has a stream of its own, so a new tensor does not change the others."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))


def find_comfyui() -> None:
    """Make `import comfy` work, on machines without a GPU too."""
    if "comfy" not in sys.modules and (folder := os.environ.get("PERFLOW_COMFYUI")):
        sys.path.append(folder)
    import comfy.cli_args

    if "comfy.model_management" not in sys.modules:
        comfy.cli_args.args.cpu = True  # these models are made on the CPU; without this ComfyUI insists on a GPU
