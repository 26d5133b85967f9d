"""Write the example graphs of scripts/graphs to workflows/, from the node interfaces of a real ComfyUI.

`python scripts/draw_graphs.py [--check]` needs Python and nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import environment
from environment import PACK, say
from graphs import GRAPHS
from graphs.drawing import Graph
from user_cache import run_program

WORKFLOWS = PACK / "workflows"
OTHER_PACKS = ("ipadapter_plus", "triposr")  # not on the package index: their interfaces as data, in tests/
FRONTEND = "1.47.12"  # the page that ComfyUI's default version here brings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    options = parser.parse_args()
    comfyui = environment.enter(environment.DEFAULT)
    from trial.server import ComfyServer

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base, ComfyServer(comfyui, Path(base)) as server:
        info = server.object_info()
    stale = [title for title, text in drawn(info).items() if not is_written(title, text, write=not options.check)]
    for title in stale:
        say(f"{title}: {'differs from what scripts/graphs draws' if options.check else 'written'}")
    return 1 if options.check and stale else 0


def drawn(info: dict[str, Any]) -> dict[str, str]:
    """Every graph's title -> the text of its file."""
    versions = {"comfy-core": environment.DEFAULT, "perflow": pack_version(), "frontend": FRONTEND}
    for pack in OTHER_PACKS:
        info = info | json.loads((PACK / "tests" / f"{pack}_interface.json").read_text(encoding="utf-8"))
    texts = {}
    for title, draw in GRAPHS.items():
        graph = Graph(title, info, versions)
        draw(graph)
        texts[title] = json.dumps(graph.save(), indent=1, ensure_ascii=False) + "\n"
    return texts


def is_written(title: str, text: str, write: bool) -> bool:
    """Whether the file holds that text already; writes it if asked to."""
    path = WORKFLOWS / f"{title}.json"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return True
    if write:
        path.write_text(text, encoding="utf-8", newline="\n")
    return False


def pack_version() -> str:
    found = re.search(r'^version = "(.+)"', (PACK / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


if __name__ == "__main__":
    run_program(main)
