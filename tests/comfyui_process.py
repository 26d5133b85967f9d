"""ComfyUI inside the test process, started as main.py does: arguments, server object, nodes, the pack through its loader."""

import asyncio
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = "perflow"  # what ComfyUI-Manager would call the installed pack


@dataclass(frozen=True)
class ComfyUI:
    nodes: Mapping[str, Any]  # node id -> class: ComfyUI's own and the pack's
    pack: ModuleType  # the pack's top module
    base: Path  # models/, output/ ...
    seconds_to_load: float

    def module(self, name: str) -> ModuleType:
        """A module of the installed pack, e.g. "perflow_core.chord"."""
        return importlib.import_module(f"{self.pack.__name__}.{name}")


def start(comfyui: Path, repository: Path, base: Path) -> ComfyUI:
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu", "--base-directory", str(base)]
    import comfy.options

    comfy.options.enable_args_parsing()
    sys.modules.pop("nodes", None)
    import execution  # noqa: F401 - main.py's order
    import nodes
    import server

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer(loop)
    for extra in ("nodes_custom_sampler", "nodes_hooks", "nodes_model_advanced"):
        path = comfyui / "comfy_extras" / f"{extra}.py"
        assert loop.run_until_complete(nodes.load_custom_node(str(path), module_parent="comfy_extras"))
    return install_pack(loop, nodes, repository, base)


def install_pack(loop: asyncio.AbstractEventLoop, nodes: ModuleType, repository: Path, base: Path) -> ComfyUI:
    import time

    installed = base / "custom_nodes" / FOLDER
    installed.parent.mkdir(parents=True)
    os.symlink(repository, installed, target_is_directory=True)
    started = time.perf_counter()
    loaded = loop.run_until_complete(nodes.load_custom_node(str(installed), module_parent="custom_nodes"))
    seconds = time.perf_counter() - started
    assert loaded, "ComfyUI could not load the pack"
    pack = next(module for name, module in sys.modules.items() if name.endswith("custom_nodes/" + FOLDER))
    return ComfyUI(nodes.NODE_CLASS_MAPPINGS, pack, base, seconds)
