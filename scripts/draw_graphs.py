"""Write the example graphs of scripts/graphs to workflows/, from the node interfaces of a real ComfyUI.

`python scripts/draw_graphs.py [--check]` needs Python and nothing else.
"""

from __future__ import annotations

import json
import re

import environment
from environment import PACK
from graphs import GRAPHS
from graphs.drawing import Graph
from interface_files import Json, write_files
from user_cache import run_program

WORKFLOWS = PACK / "workflows"
OTHER_PACKS = ("ipadapter_plus", "triposr")  # not on the package index: their interfaces as data, in tests/
FRONTEND = "1.47.12"  # the page that ComfyUI's default version here brings


def main() -> int:
    return write_files(__doc__, lambda info: {WORKFLOWS / f"{title}.json": text for title, text in drawn(info).items()})


def drawn(info: Json) -> dict[str, str]:
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


def pack_version() -> str:
    found = re.search(r'^version = "(.+)"', (PACK / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


if __name__ == "__main__":
    run_program(main)
