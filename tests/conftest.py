"""A real ComfyUI for every test that asks for one, and the paths all tests share."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests" / "golden"

# After everything else: the pack's nodes/ must not hide ComfyUI's nodes.py.
for folder in (REPOSITORY, REPOSITORY / "tests" / "support", REPOSITORY / "scripts"):
    sys.path.append(str(folder))


@pytest.fixture(scope="session")
def golden():
    """The reference numbers of one file in tests/golden."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((GOLDEN / f"{name}.json").read_text())

    return read


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    path = Path(os.environ.get("PERFLOW_COMFYUI", ""))
    if not (path / "main.py").is_file():
        pytest.fail("PERFLOW_COMFYUI does not name a ComfyUI folder: run the tests with `python scripts/test.py`.")
    return path


@pytest.fixture(scope="session")
def comfyui(comfyui_path, tmp_path_factory):
    """ComfyUI in this process with the pack installed, as main.py starts it; see `comfyui_process.start`."""
    import comfyui_process

    return comfyui_process.start(comfyui_path, REPOSITORY, tmp_path_factory.mktemp("comfyui"))
