"""What is known of every cell's pictures, kept in files of one batch each, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from perflow_core.atomic_file import atomic_write

Judged = dict[str, Tensor]  # each [n, ...], a row for a picture


class Store:
    """One cell's folder: files such as 00100-00200.safetensors with what was found of pictures 100 to 199."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.folder, self._batch = folder, batch

    def missing(self, count: int) -> Iterator[range]:
        """The batches, of the first `count` pictures, that have no file yet."""
        return (numbers for numbers in self._batches(count) if not self._file(numbers).exists())

    def keep(self, numbers: range, found: Judged) -> None:
        """Written whole or not at all."""
        with atomic_write(self._file(numbers)) as unfinished:
            save_file({name: tensor.contiguous() for name, tensor in found.items()}, unfinished)

    def read(self, count: int) -> Judged:
        """What is known of the first `count` pictures, all of which have to be there."""
        parts = [load_file(self._file(numbers)) for numbers in self._batches(count)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _batches(self, count: int) -> Iterator[range]:
        return (range(i, min(i + self._batch, count)) for i in range(0, count, self._batch))

    def _file(self, numbers: range) -> Path:
        return self.folder / f"{numbers.start:05}-{numbers.stop:05}.safetensors"
