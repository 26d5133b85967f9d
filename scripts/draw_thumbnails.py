"""Writes workflows/<title>.jpg, which ComfyUI's template browser shows for each example graph.

`python scripts/draw_thumbnails.py [TITLE ...]` needs Python and nothing else. Without titles it draws all of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import environment
from environment import PACK, UserError, say
from user_cache import run_program

if TYPE_CHECKING:
    from PIL.Image import Image

WORKFLOWS = PACK / "workflows"
QUALITY = 88


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", nargs="*", metavar="TITLE")
    options = parser.parse_args()
    comfyui = environment.enter()
    import thumbnails
    from screenshots import server

    titles = options.titles or list(thumbnails.CARDS)
    if unknown := set(titles) - thumbnails.CARDS.keys():
        raise UserError(f"There is no graph {', '.join(sorted(unknown))}: give titles from {WORKFLOWS.name}.")
    with server(comfyui) as running:
        for title in titles:
            made = []
            if thumbnails.CARDS[title].values is not None:
                graph = json.loads((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))
                made = thumbnails.pictures(running, thumbnails.for_small_model(title, graph))
            save(thumbnails.thumbnail(title, made), WORKFLOWS / f"{title}.jpg")


def save(picture: Image, path: Path) -> None:
    picture.save(path, quality=QUALITY, optimize=True)
    say(f"{path} ({path.stat().st_size // 1000} kB)")


if __name__ == "__main__":
    run_program(main)
