"""Wonder3D's UNet with the reference's weights, which a formula defines, as files and as MODELs."""

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def formula_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The reference's weight_rule."""
    numbers = np.arange(1, math.prod(shape) + 1, dtype=np.float64)
    s = (zlib.crc32(name.encode()) % 10007) / 10007
    wave = np.sin(numbers * 12.9898 + 78.233 * s) * 43758.5453
    v = torch.from_numpy(2 * (wave - np.floor(wave)) - 1).reshape(shape)
    if len(shape) > 1:
        return v * math.sqrt(3 / math.prod(shape[1:]))
    return 1 + 0.1 * v if name.endswith("weight") else 0.05 * v


def formula_weights(keys: Mapping[str, list[int]]) -> Tensors:
    return {name: formula_weight(name, shape).float() for name, shape in keys.items()}


def with_old_names(tensors: Tensors) -> Tensors:
    return {name.replace("_joint_mid.", "_joint_twice."): tensor for name, tensor in tensors.items()}


def write(tensors: Tensors, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path))
    else:
        torch.save(tensors, path)
    return path


def inputs(case: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The UNet's input [12, 8, 8, 8] and context [12, 1, 16], and its output [12, 4, 8, 8]."""
    x, context, out = (torch.tensor(case[name], dtype=torch.float32) for name in ("x", "context", "out"))
    return x.reshape(12, 8, 8, 8), context.reshape(12, 1, -1), out.reshape(12, 4, 8, 8)
