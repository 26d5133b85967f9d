"""Model files: written whole or not at all, with holes where a tensor is all zeros."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import torch

from perflow_core.atomic_file import atomic_write

Tensors = dict[str, torch.Tensor]

_NAMES = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}  # what .safetensors calls them


def zeros(shape: torch.Size, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """Zeros of any shape in the memory of one number; `save` leaves a hole for them."""
    return torch.zeros((), dtype=dtype).expand(shape)


def save(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write a .safetensors file: 8 bytes with the header's length, the header, then the tensors one after another.

    One whose name ends in .bin or .ckpt is written as torch.save does, where zeros take no place either.
    """
    if path.suffix in (".bin", ".ckpt"):
        with atomic_write(path) as unfinished:
            torch.save(tensors, unfinished)
        return path
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    places: dict[str, int] = {}
    end = 0
    for name, tensor in tensors.items():
        places[name], end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [places[name], end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name, tensor in tensors.items():
            _write(tensor, file, start + places[name])
        file.truncate(start + end)
    return path


def save_name(path: Path) -> Path:
    """Write a file that has the name of a model and no model in it."""
    return save({"none": zeros(torch.Size([1]))}, path)


def _write(tensor: torch.Tensor, file: BinaryIO, place: int) -> None:
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size() and not tensor.any():
        return  # a hole reads as zeros
    file.seek(place)
    file.write(tensor.contiguous().numpy().tobytes())
