"""The parts of the benchmarks are imported from their folder, as the benchmarks themselves do."""

import sys
from pathlib import Path

import pytest
from model_folders import same_model_folders

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(scope="module", autouse=True)
def folders_as_they_were(comfyui):
    """The benchmarks show ComfyUI model folders of theirs, which other tests of this process must not see."""
    with same_model_folders():
        yield


@pytest.fixture
def other_folders(comfyui):
    """For a test whose folders are gone before those of its file are."""
    with same_model_folders():
        yield
