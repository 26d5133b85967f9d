"""Files are written whole or not at all, and never over another.

A file grows under another ending, `.unfinished`, which no loader offers, and gets its name when it is complete. Where
there is a choice of names, the unfinished file also holds the name's place: a second writer sees it and takes the next.
"""

import contextlib
import errno
import itertools
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

UNFINISHED = ".unfinished"  # no longer than .safetensors: a name that is short enough stays so
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
ADVICE = {
    errno.ENOSPC: "free some disk space or choose another output folder",
    errno.EDQUOT: "free some of your disk space or choose another output folder",
    errno.EROFS: "this disk cannot be written to, so choose another output folder",
    errno.EACCES: "you may not write there, so change the folder's rights or choose another",
    errno.EPERM: "you may not write there, so change the folder's rights or choose another",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "this disk takes no files of that size, so choose another output folder",
}


class NewFile:
    """A .safetensors file in the making, tensor by tensor; a context manager that leaves nothing behind on errors.

    The format has its header first, so room is kept there and filled when all is known. Raises FileExistsError where
    none of the names is free, and OSError (disk full, no right to write).
    """

    def __init__(self, paths: Path | Iterable[Path], room: int):
        """paths: the name, or names in the order in which they are tried, in one folder; room: see `header_room`."""
        self._paths: Iterator[Path] = iter(() if isinstance(paths, Path) else paths)
        self._entries: dict[str, Any] = {}
        self._waiting: list[tuple[str, Tensor]] = []
        self._room = -(-(room + LARGEST_METADATA) // ALIGNMENT) * ALIGNMENT
        self._bytes = 0
        self.path, self._file = self._only_name(paths) if isinstance(paths, Path) else self._free_name()
        self._unfinished = Path(self._file.name)
        self._file.seek(8 + self._room)

    def _only_name(self, path: Path) -> tuple[Path, BinaryIO]:
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the name is taken", str(path))
        return path, path.with_suffix(f".{os.getpid()}{UNFINISHED}").open("wb")

    def _free_name(self) -> tuple[Path, BinaryIO]:
        for path in self._paths:
            if not path.exists():
                with contextlib.suppress(FileExistsError):  # somebody is writing it now
                    return path, path.with_suffix(UNFINISHED).open("xb")
        raise FileExistsError(errno.EEXIST, "every name is taken")

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        try:
            self._file.close()  # fails again on a full disk, where something is left to be written
        finally:
            self._unfinished.unlink(missing_ok=True)

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
        self._file.seek(0)
        self._file.write(struct.pack("<Q", self._room) + header.ljust(self._room))
        self._file.flush()
        os.fsync(self._file.fileno())  # or a power failure could leave the name with nothing behind it
        self._file.close()
        for path in itertools.chain([self.path], self._paths):
            with contextlib.suppress(FileExistsError):  # made meanwhile by a program that does not look for ours
                _rename_to_new(self._unfinished, path)
                return path
        raise FileExistsError(errno.EEXIST, "the name was taken meanwhile", str(self.path))

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


def write_new(tensors: Mapping[str, Tensor], path: Path | Iterable[Path], metadata: Mapping[str, str]) -> Path:
    """Write a .safetensors file that appears under its name only when it is complete; returns the name.

    Raises as `NewFile` does.
    """
    with NewFile(path, header_room((name, tensor.ndim) for name, tensor in tensors.items())) as file:
        for name, tensor in tensors.items():
            file.add(name, tensor)
        return file.finish(metadata)


def in_one_sentence(error: OSError, path: Path) -> OSError:
    """An error of the same class that names the file, what happened, and what to do."""
    name = path.name if len(path.name) <= 80 else f"{path.name[:60]}... ({len(path.name)} letters)"
    what = (error.strerror or str(error)).lower()
    advice = ADVICE.get(error.errno or 0, "choose another output folder")
    return type(error)(f"{name} cannot be written to {path.parent} ({what}), expected to make a file there: {advice}.")


def _rename_to_new(unfinished: Path, path: Path) -> None:
    """Give the file its name unless somebody has it: FileExistsError. A link does both in one step."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # no links on this disk (FAT, some network disks)
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the name is taken", str(path)) from None
        unfinished.rename(path)
