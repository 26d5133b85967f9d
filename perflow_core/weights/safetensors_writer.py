"""Writing .safetensors files tensor by tensor, so that whole models are written without being held."""

import errno
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..atomic_file import new_file, take_name

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


class SafetensorsWriter:
    """Writes a new .safetensors file. The format has its header first, so room is kept there and filled at the end."""

    def __init__(self, file: BinaryIO, paths: Iterable[Path], room: int):
        """file: of `new_file`; paths: its name, or names in the order in which they are tried; room: `header_room`."""
        self._file, self._paths = file, paths
        self._entries: dict[str, Any] = {}
        self._waiting: list[tuple[str, Tensor]] = []
        self._room = -(-(room + LARGEST_METADATA) // ALIGNMENT) * ALIGNMENT
        self._bytes = 0
        file.seek(8 + self._room)

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
            raise ValueError(f"The file's header takes {len(header)} bytes, expected {self._room} at most.")
        self._file.seek(0)
        self._file.write(struct.pack("<Q", self._room) + header.ljust(self._room))
        return take_name(self._file, self._paths)

    def _write(self, name: str, tensor: Tensor) -> None:
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._file.write(numbers.data)
        start, self._bytes = self._bytes, self._bytes + len(numbers)
        self._entries[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, self._bytes],
        }


def header_room(shapes: Iterable[tuple[str, int]]) -> int:
    """Bytes that the header may take for tensors of those names and numbers of dimensions."""
    return sum(len(json.dumps(name)) + ENTRY + 21 * dimensions for name, dimensions in shapes)


def write_new(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> Path:
    """Write a .safetensors file that appears under its name only when it is complete; returns the name.

    Raises FileExistsError where the name is taken, and OSError (disk full, no right to write).
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, "the name is taken", str(path))
    with new_file(path) as file:
        writer = SafetensorsWriter(file, [path], header_room((name, tensor.ndim) for name, tensor in tensors.items()))
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        return writer.finish(metadata)
