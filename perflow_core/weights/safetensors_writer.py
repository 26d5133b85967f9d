"""Writing .safetensors files tensor by tensor, so that whole models are written without being held."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic_file import NewFile

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8  # bytes: readers need numbers that start at a multiple of their size
LARGEST_METADATA = 1 << 16  # bytes
ENTRY = 90  # bytes of a header entry beside its name and its shape


class SafetensorsWriter(NewFile):
    """A new .safetensors file. The format has its header first, so room is kept there and filled when all is known."""

    def __init__(self, paths: Path | Iterable[Path], room: int):
        """room: see `header_room`."""
        super().__init__(paths)
        self._entries: dict[str, Any] = {}
        self._waiting: list[tuple[str, Tensor]] = []
        self._room = -(-(room + LARGEST_METADATA) // ALIGNMENT) * ALIGNMENT
        self._bytes = 0
        self.file.seek(8 + self._room)

    def add(self, name: str, tensor: Tensor) -> None:
        """Write a tensor now. Small ones that would put the next ones out of step with ALIGNMENT wait for the end."""
        if tensor.nbytes % ALIGNMENT:
            self._waiting.append((name, tensor.to("cpu", copy=True)))
        else:
            self._write(name, tensor)

    def finish(self, metadata: Mapping[str, str]) -> Path:
        """Write what is left, then the header, and give the file its name, which is returned."""
        for name, tensor in sorted(self._waiting, key=lambda item: -item[1].element_size()):
            self._write(name, tensor)
        header = json.dumps({"__metadata__": dict(metadata), **self._entries}, separators=(",", ":")).encode()
        if len(header) > self._room:
            raise ValueError(
                f"The header of {self.path.name} takes {len(header)} bytes, expected {self._room} at most."
            )
        self.file.seek(0)
        self.file.write(struct.pack("<Q", self._room) + header.ljust(self._room))
        return self.take_name()

    def _write(self, name: str, tensor: Tensor) -> None:
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self.file.write(numbers.data)
        start, self._bytes = self._bytes, self._bytes + len(numbers)
        self._entries[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, self._bytes],
        }


def header_room(shapes: Iterable[tuple[str, int]]) -> int:
    """Bytes that the header may take for tensors of those names and numbers of dimensions."""
    return sum(len(json.dumps(name)) + ENTRY + 21 * dimensions for name, dimensions in shapes)


def write_new(tensors: Mapping[str, Tensor], path: Path | Iterable[Path], metadata: Mapping[str, str]) -> Path:
    """Write a .safetensors file that appears under its name only when it is complete; returns the name.

    Raises as `NewFile` does.
    """
    with SafetensorsWriter(path, header_room((name, tensor.ndim) for name, tensor in tensors.items())) as file:
        for name, tensor in tensors.items():
            file.add(name, tensor)
        return file.finish(metadata)
