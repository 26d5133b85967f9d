"""A real ComfyUI for every test that asks for one, and the paths all tests share."""

import functools
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

# Before torch is here: small models gain little from more threads, and lose much where the cores have other work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def model_paths(comfyui_path, tmp_path_factory) -> Path:
    """The extra model paths file that shows a ComfyUI the graphs' models, which are small here."""
    from trial.cached_models import write_model_paths

    return write_model_paths(tmp_path_factory.mktemp("paths") / "extra_model_paths.yaml", comfyui_path)


@pytest.fixture(scope="session")
def server(comfyui_path, model_paths, tmp_path_factory):
    """A running ComfyServer with the pack, and small models under the names that the graphs ask for."""
    yield from run_server(comfyui_path, model_paths, tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def ipadapter_server(comfyui_path, model_paths, tmp_path_factory):
    """The same with ComfyUI_IPAdapter_plus, where IPADAPTER_PLUS_PATH names a checkout of it.

    It ends with each of the few files that ask for it: it takes up to 5 GB beside the other server.
    """
    yield from run_server_with(["IPADAPTER_PLUS_PATH"], comfyui_path, model_paths, tmp_path_factory)


@pytest.fixture(scope="module")
def triposr_server(comfyui_path, model_paths, tmp_path_factory):
    """The same with ComfyUI-Flowty-TripoSR, where TRIPOSR_PATH names a checkout whose packages are there."""
    yield from run_server_with(["TRIPOSR_PATH"], comfyui_path, model_paths, tmp_path_factory)


@pytest.fixture(scope="session")
def start_server(comfyui_path, model_paths):
    """(folder, arguments) -> one more such server, with arguments of ComfyUI's."""
    return functools.partial(run_server, comfyui_path, model_paths)


@pytest.fixture(scope="session")
def server_beside_others(comfyui_path, model_paths, tmp_path_factory):
    """The same with every other pack that is here, all in one ComfyUI."""
    import other_packs

    yield from run_server_with(other_packs.here(), comfyui_path, model_paths, tmp_path_factory)


def run_server_with(variables: list[str], comfyui_path: Path, model_paths: Path, tmp_path_factory):
    import other_packs

    base = tmp_path_factory.mktemp("other_packs")
    other_packs.install(base, *variables)
    # The packages that these packs need lie where the user's own PYTHONPATH says.
    packages = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    yield from run_server(comfyui_path, model_paths, base, environment=packages)


def run_server(
    comfyui_path: Path, model_paths: Path, base: Path, *arguments: str, environment: Mapping[str, str] | None = None
):
    from trial.server import ComfyServer

    (base / "input").mkdir()
    shutil.copy(comfyui_path / "input" / "example.png", base / "input")
    arguments = ("--extra-model-paths-config", str(model_paths), *arguments)
    with ComfyServer(comfyui_path, base, arguments=arguments, environment=environment) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(server) -> dict[str, Any]:
    return server.object_info()


@pytest.fixture(scope="session")
def comfyui(comfyui_path, tmp_path_factory):
    """ComfyUI in this process with the pack installed, as main.py starts it; see `process.start`."""
    from core_state import watched_loading
    from trial import process

    with watched_loading():
        return process.start(comfyui_path, REPOSITORY, tmp_path_factory.mktemp("comfyui"))


def pytest_terminal_summary(terminalreporter):
    """Say what was not run and how to run it; skips alone are easily overlooked."""
    from other_packs import OTHER_PACKS, left_out

    for variable, files in left_out(terminalreporter.stats.get("skipped", [])).items():
        pack = OTHER_PACKS[variable]
        terminalreporter.section(pack.address.rsplit("/", 1)[-1], yellow=True)
        for file, tests in files.items():
            terminalreporter.line(f"not run: {tests} of the tests in {file}")
        if pack.interface:
            terminalreporter.line(
                f"This was checked against that pack's interface as data, tests/{pack.interface}_interface.json."
            )
        terminalreporter.line(
            f"To run it, set {variable} to a checkout of {pack.address} and start the tests again; "
            "tests/other_packs.md says which packages it needs."
        )
