"""The tests of small_model/, whose name pytest would take for its module if this folder had it too."""

import os

import pytest
from model_folders import same_model_folders

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="module")
def comfyui(comfyui):
    """These tests show ComfyUI model folders of theirs, which other tests of this process must not see."""
    with same_model_folders():
        yield comfyui
