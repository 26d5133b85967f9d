"""ComfyUI inside the test process, started as main.py does: arguments, server object, nodes, the pack by its loader."""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from .installed_pack import FOLDER, install_pack


@dataclass(frozen=True)
class ComfyUI:
    nodes: Mapping[str, Any]  # node id -> class: ComfyUI's own and the pack's
    pack: ModuleType  # the pack's top module
    base: Path  # models/, output/ ...
    seconds_to_load: float
    imported_by_loading: set[str]  # modules, the pack's own aside, that ComfyUI had not imported by itself

    def module(self, name: str) -> ModuleType:
        """A module of the installed pack, e.g. "perflow_core.sampling.chord"."""
        return importlib.import_module(f"{self.pack.__name__}.{name}")


def device_arguments() -> list[str]:
    """The CPU, unless PERFLOW_DEVICE is gpu: then the device that ComfyUI chooses."""
    return [] if os.environ.get("PERFLOW_DEVICE") == "gpu" else ["--cpu"]


def start(comfyui: Path, repository: Path, base: Path, arguments: Sequence[str] | None = None) -> ComfyUI:
    """With ComfyUI's own arguments, where it is not to run on the device that tests run on."""
    arguments = device_arguments() if arguments is None else arguments
    assert "comfy" not in sys.modules, "ComfyUI is in this process already, without the arguments that it is to have"
    sys.path.insert(0, str(comfyui))
    import comfy.options

    comfy.options.enable_args_parsing()
    with mock.patch.object(sys, "argv", ["main.py", *arguments, "--base-directory", str(base)]):
        import comfy.cli_args  # which reads them
    if not comfy.cli_args.args.cpu and "torch" not in sys.modules:
        importlib.import_module("cuda_malloc")  # as in main.py: it chooses torch's allocator
    importlib.import_module("utils.extra_config")  # first, as in main.py: later another module may take the name utils
    importlib.import_module("execution")
    import server

    import nodes

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer(loop)
    for extra in ("custom_sampler", "hooks", "model_advanced", "model_downscale", "model_merging"):
        path = comfyui / "comfy_extras" / f"nodes_{extra}.py"
        assert loop.run_until_complete(nodes.load_custom_node(str(path), module_parent="comfy_extras"))
    return load_pack(loop, nodes, repository, base)


def load_pack(loop: asyncio.AbstractEventLoop, nodes: ModuleType, repository: Path, base: Path) -> ComfyUI:
    installed = base / "custom_nodes" / FOLDER
    installed.parent.mkdir(parents=True)
    install_pack(repository, installed)
    modules = set(sys.modules)
    seconds = _load(loop, nodes, installed)
    pack = next(module for name, module in sys.modules.items() if name.endswith("custom_nodes/" + FOLDER))
    imported = {name for name in set(sys.modules) - modules if not name.startswith(pack.__name__)}
    return ComfyUI(nodes.NODE_CLASS_MAPPINGS, pack, base, seconds, imported)


def load_again(loop: asyncio.AbstractEventLoop, nodes: ModuleType, comfyui: ComfyUI) -> float:
    """Load the pack from where it is, as another start of ComfyUI would; returns the seconds."""
    for name in [name for name in sys.modules if name.startswith(comfyui.pack.__name__)]:
        del sys.modules[name]
    return _load(loop, nodes, comfyui.base / "custom_nodes" / FOLDER)


def _load(loop: asyncio.AbstractEventLoop, nodes: ModuleType, installed: Path) -> float:
    started = time.perf_counter()
    loaded = loop.run_until_complete(nodes.load_custom_node(str(installed), module_parent="custom_nodes"))
    assert loaded, "ComfyUI could not load the pack"
    return time.perf_counter() - started
