"""A delta file in output/perflow, where Apply PeRFlow Delta finds it."""

from collections.abc import Mapping
from pathlib import Path

import folder_paths
from torch import Tensor

from ..perflow_core.safe_write import write_new
from . import folders


def delta_folder() -> Path:
    """output/perflow, made where it is not there."""
    folder = Path(folder_paths.get_output_directory()) / folders.KEY
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_delta(tensors: Mapping[str, Tensor], prefix: str, metadata: Mapping[str, str]) -> Path:
    """Write to output/perflow under a number that is free; never over another file."""
    root = str(delta_folder())
    while True:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, root)
        path = Path(folder) / f"{name}_{counter:05}_.safetensors"
        try:
            write_new(tensors, path, metadata)
        except FileExistsError:
            continue  # someone took the number meanwhile: the next one is free
        return path
