"""A delta file in output/perflow, where Apply PeRFlow Delta finds it."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import folder_paths
from torch import Tensor

from ....perflow_core.atomic_file import in_one_sentence, new_file
from ....perflow_core.weights.safetensors_writer import SafetensorsWriter, header_room
from .. import folders

NAME = "delta"  # of a file whose prefix names a folder only


def delta_folder() -> Path:
    """output/perflow, made where it is not there."""
    folder = Path(folder_paths.get_output_directory()) / folders.KEY
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_delta(tensors: Mapping[str, Tensor], prefix: str, metadata: Mapping[str, str]) -> Path:
    """Write to output/perflow under a number that is free; never over another file."""
    with new_delta(prefix, ((name, tensor.ndim) for name, tensor in tensors.items())) as file:
        for name, tensor in tensors.items():
            file.add(name, tensor)
        return file.finish(metadata)


@contextmanager
def new_delta(prefix: str, shapes: Iterable[tuple[str, int]]) -> Iterator[SafetensorsWriter]:
    """A delta to be written tensor by tensor. shapes: the most names and dimensions it may get.

    Raises ValueError for a prefix that leads elsewhere, and OSError, in one sentence, where it cannot be written.
    """
    folder, name, first = named(prefix)
    paths = (folder / f"{name}_{number:05}_.safetensors" for number in itertools.count(first))
    path = next(paths)
    try:
        while path.exists():  # fails for a name that is too long
            path = next(paths)
        with new_file(path) as file:
            yield SafetensorsWriter(file, itertools.chain([path], paths), header_room(shapes))
    except OSError as error:
        if error.errno is None:  # in one sentence already
            raise
        raise in_one_sentence(error, path) from error


def named(prefix: str) -> tuple[Path, str, int]:
    """Folder, name and number of the next file. A prefix that names a folder ("delta/", "", "x/.") gets NAME in it."""
    root = delta_folder()
    prefix = prefix.strip()
    if os.path.basename(prefix) in ("", ".", ".."):
        prefix = os.path.join(prefix, NAME)
    inside = os.path.normpath(os.path.join(root, prefix)).startswith(os.path.join(root, ""))
    if not inside or any(ord(letter) < 32 for letter in prefix):
        raise ValueError(
            f"filename_prefix is {ascii(prefix)[:100]}, expected a file name, or folders and a file name, below "
            f"{root}: choose one such as delta or styles/delta."
        )
    try:
        folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, str(root))
    except OSError as error:
        raise in_one_sentence(error, root / prefix) from error
    return Path(folder), name, number
