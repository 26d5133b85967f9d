"""A real ComfyUI for every test that asks for one, and the paths all tests share."""

import functools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

# Before torch is here: small models gain little from more threads, and lose much where the cores have other work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests" / "golden"
# Other packs that graphs use: the variable that names a checkout -> its address, its folder, its interface as data.
OTHER_PACKS = {
    "IPADAPTER_PLUS_PATH": (
        "https://github.com/cubiq/ComfyUI_IPAdapter_plus",
        "comfyui_ipadapter_plus",
        "ipadapter_plus",
    ),
    "TRIPOSR_PATH": ("https://github.com/flowtyone/ComfyUI-Flowty-TripoSR", "ComfyUI-Flowty-TripoSR", "triposr"),
}
WITHOUT = "{} is not set: that pack is not here"

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
    base = tmp_path_factory.mktemp("ipadapter_server")
    install_other_pack("IPADAPTER_PLUS_PATH", base)
    yield from run_server(comfyui_path, model_paths, base)


def install_other_pack(variable: str, base: Path) -> None:
    if not os.environ.get(variable):
        pytest.skip(WITHOUT.format(variable))
    pack = Path(os.environ[variable]).expanduser().absolute()
    if not (pack / "__init__.py").is_file():
        pytest.fail(f"{variable} is {pack}, which has no __init__.py: set it to a checkout of the pack.")
    from trial.installed_pack import install_pack

    (base / "custom_nodes").mkdir()
    _, folder, _ = OTHER_PACKS[variable]
    install_pack(pack, base / "custom_nodes" / folder)


@pytest.fixture(scope="module")
def triposr_server(comfyui_path, model_paths, tmp_path_factory):
    """The same with ComfyUI-Flowty-TripoSR, where TRIPOSR_PATH names a checkout whose packages are there."""
    base = tmp_path_factory.mktemp("triposr_server")
    install_other_pack("TRIPOSR_PATH", base)
    yield from run_server(comfyui_path, model_paths, base)


@pytest.fixture(scope="session")
def start_server(comfyui_path, model_paths):
    """(folder, arguments) -> one more such server, with arguments of ComfyUI's."""
    return functools.partial(run_server, comfyui_path, model_paths)


def run_server(comfyui_path: Path, model_paths: Path, base: Path, *arguments: str):
    from trial.server import ComfyServer

    (base / "input").mkdir()
    shutil.copy(comfyui_path / "input" / "example.png", base / "input")
    arguments = ("--extra-model-paths-config", str(model_paths), *arguments)
    with ComfyServer(comfyui_path, base, arguments=arguments) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(server) -> dict[str, Any]:
    return server.object_info()


@pytest.fixture(scope="session")
def comfyui(comfyui_path, tmp_path_factory):
    """ComfyUI in this process with the pack installed, as main.py starts it; see `process.start`."""
    from trial import process

    return process.start(comfyui_path, REPOSITORY, tmp_path_factory.mktemp("comfyui"))


def pytest_terminal_summary(terminalreporter):
    """Say what was not run and how to run it; skips alone are easily overlooked."""
    reports = terminalreporter.stats.get("skipped", [])
    for variable, (address, _, interface) in OTHER_PACKS.items():
        missed = [report.nodeid for report in reports if WITHOUT.format(variable) in str(report.longrepr)]
        if not missed:
            continue
        terminalreporter.section(address.rsplit("/", 1)[-1], yellow=True)
        for name in missed:
            terminalreporter.line(f"not run: {name}")
        terminalreporter.line(
            f"This was checked against that pack's interface as data, tests/{interface}_interface.json, and not run. "
            f"To run it, set {variable} to a checkout of {address} (GPL-3.0) and start the tests again."
        )
