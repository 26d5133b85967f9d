"""For programs that make files from the node interfaces of a real ComfyUI, and with --check only compare them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environment
from environment import say

Json = dict[str, Any]


def write_files(description: str | None, made: Callable[[Json], dict[Path, str]]) -> int:
    """Write what `made` makes of /object_info, file -> text; returns 1 if --check was asked for and a file differs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    options = parser.parse_args()
    comfyui = environment.enter(environment.DEFAULT)
    from trial.server import ComfyServer

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base, ComfyServer(comfyui, Path(base)) as server:
        texts = made(server.object_info())
    stale = {
        path: text for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    state = f"differs from what {parser.prog} makes" if options.check else "written"
    for path, text in stale.items():
        if not options.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        say(f"{path.parent.name}/{path.name}: {state}")
    return 1 if options.check and stale else 0
