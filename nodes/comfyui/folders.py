"""The folder key "perflow": models/perflow, extra_model_paths.yaml, and output/perflow where extracted deltas go."""

import contextlib
import os

import folder_paths

from ...perflow_core.errors import shown

KEY = "perflow"
EXTENSIONS = (".safetensors", ".sft")  # no pickles: they can run code
NO_DELTA = "no delta yet: put one into models/perflow, press R"  # a list without entries shows nothing that helps


def register() -> None:
    own = os.path.join(folder_paths.models_dir, KEY)
    with contextlib.suppress(OSError):  # where it may not be made, the other folders are still searched
        os.makedirs(own, exist_ok=True)
    folder_paths.add_model_folder_path(KEY, own)
    folder_paths.add_model_folder_path(KEY, os.path.join(folder_paths.get_output_directory(), KEY))


def delta_names() -> list[str]:
    return [name for name in folder_paths.get_filename_list(KEY) if name.lower().endswith(EXTENSIONS)]


def delta_choices() -> list[str]:
    """For a widget that needs a file; without one its single entry says what to do, and `delta_path` too."""
    return delta_names() or [NO_DELTA]


Stamp = tuple[str, int, int]


def stamp(path: str) -> Stamp:
    """Path, size and time of a file; another one when it was replaced. Raises OSError where there is none."""
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def fingerprint(name: str | None, key: str = KEY) -> Stamp | None:
    """The stamp of the file of that name in a folder key's folders; None where there is none."""
    path = folder_paths.get_full_path(key, name) if name else None
    return stamp(path) if path else None


def delta_path(name: str) -> str:
    """The file of that name. Raises FileNotFoundError with the folders that were searched."""
    path = folder_paths.get_full_path(KEY, name)
    if path is None:
        searched = ", ".join(folder_paths.get_folder_paths(KEY))
        if name == NO_DELTA:
            raise FileNotFoundError(
                f"There is no delta file in {searched} yet: put a .safetensors file there, press R to refresh, and "
                "choose it."
            )
        raise FileNotFoundError(
            f"There is no delta file {shown(name)} in {searched}: put it there, press R to refresh, and choose it "
            "again."
        )
    return path
