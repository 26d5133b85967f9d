"""Files are written whole or not at all, and never over another."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor


def write_new(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a .safetensors file that appears under its name only when it is complete.

    Raises FileExistsError where there is a file of that name already, and OSError (disk full, no right to write); then
    nothing is left behind.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        safetensors.torch.save_file(dict(tensors), str(unfinished), dict(metadata))
        path.touch(exist_ok=False)  # takes the name, or fails where someone has it
        unfinished.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
