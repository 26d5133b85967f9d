"""The parts of the benchmarks are imported from their folder, as the benchmarks themselves do."""

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(scope="module", autouse=True)
def folders_as_they_were(comfyui):
    """The benchmarks show ComfyUI model folders of theirs, which other tests of this process must not see."""
    with same_model_folders():
        yield


@contextlib.contextmanager
def same_model_folders():
    import folder_paths

    before = {kind: list(paths) for kind, (paths, _) in folder_paths.folder_names_and_paths.items()}
    yield
    for kind, paths in before.items():
        folder_paths.folder_names_and_paths[kind][0][:] = paths
    folder_paths.filename_list_cache.clear()  # it names those folders too, and ComfyUI asks each of them for its time


@pytest.fixture
def other_folders(comfyui):
    """For a test whose folders are gone before those of its file are."""
    with same_model_folders():
        yield
