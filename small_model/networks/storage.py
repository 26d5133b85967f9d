"""Weights in few bytes: 16 bits a number, or 8 and one limit a row.

With 8 bits a row of a matrix (what one output channel reads) is limit q / 127 with whole q from -127 to 127. Biases and
norms keep 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from perflow_core.atomic_file import atomic_write

WEIGHTS = Path(__file__).parents[1] / "weights"  # what is stored in this repository
Bits = Literal[8, 16]
_LIMIT = ".limit"


def pack(tensors: Mapping[str, Tensor], bits: Bits) -> dict[str, Tensor]:
    """The tensors as they are stored: float16, or int8 beside the limits of its rows ("<name>.limit", float16)."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if bits == 16 or tensor.ndim < 2:
            packed[name] = tensor.to(torch.float16).contiguous()
        else:
            rows = tensor.float().flatten(1)
            limit = rows.abs().amax(1).half()
            step = limit.float().where(limit > 0, 1.0) / 127  # by the limit as stored; a row of zeros stays one
            packed[name] = (rows / step[:, None]).round().clamp(-127, 127).to(torch.int8).view(tensor.shape)
            packed[name + _LIMIT] = limit
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float32."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if tensor.dtype == torch.int8:
            limit = packed[name + _LIMIT].float().view(-1, *(1,) * (tensor.ndim - 1))
            tensors[name] = tensor.float() * (limit / 127)
        elif not name.endswith(_LIMIT):
            tensors[name] = tensor.float()
    return tensors


def write(tensors: Mapping[str, Tensor], file: Path, bits: Bits, metadata: Mapping[str, str] | None = None) -> None:
    """Write the file whole or not at all, in place of an older one."""
    with atomic_write(file) as unfinished:
        save_file(pack(tensors, bits), unfinished, dict(metadata or {}))


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file in float32, however they are stored, and its metadata."""
    with safe_open(str(file), framework="pt") as opened:
        return unpack({name: opened.get_tensor(name) for name in opened.keys()}), opened.metadata() or {}  # noqa: SIM118


def networks(tensors: Mapping[str, Tensor], *parts: str) -> list[dict[str, Tensor]]:
    """The networks `parts` ("unet"; "encoder", "decoder") of a file; of several, prefixes of the names tell which."""
    if len(parts) == 1:
        return [dict(tensors)]
    return [{n.removeprefix(f"{p}."): t for n, t in tensors.items() if n.startswith(f"{p}.")} for p in parts]


def averaged(file: Path, *parts: str) -> list[dict[str, Tensor]]:
    """The running averages of the networks `parts` in a training's state file, by name."""
    state = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
    means = iter(state["state"]["ema"])
    return [{name: next(means) for name in state[part]} for part in parts]
