"""Pictures of the example graphs, the help pages and the template browser as ComfyUI's web page shows them.

`python scripts/screenshots.py --out DIR` takes them, `--readme` writes the first graph's for the README. Graphs with
nodes of ComfyUI_IPAdapter_plus need IPADAPTER_PLUS_PATH, the folder of that pack; the one with nodes of
ComfyUI-Flowty-TripoSR needs TRIPOSR_PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import environment
from environment import PACK, UserError, say
from trial import cached_models
from user_cache import run_program

if TYPE_CHECKING:
    from comfy_page import ComfyPage, Json
    from trial.server import ComfyServer

WORKFLOWS = PACK / "workflows"
# TripoSR's pack finds its viewer by its folder's name.
OTHER_PACKS = {"IPADAPTER_PLUS_PATH": "ipadapter_plus", "TRIPOSR_PATH": "ComfyUI-Flowty-TripoSR"}
LARGE = 2000, 1200  # pixels of a page with a whole graph
FIRST, README, WIDE = "01 SD1.5 text to image", PACK / "docs" / "first-graph.jpg", (1500, 950)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go")
    parser.add_argument("--readme", action="store_true", help=f"write {README.relative_to(PACK).as_posix()}")
    parser.add_argument("--comfyui", metavar="VERSION", help=f"one of {', '.join(environment.VERSIONS)}")
    options = parser.parse_args()
    if not (options.out or options.readme):
        raise UserError("There is nothing to do: give --out DIR or --readme (--help says what they are).")
    graphs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(WORKFLOWS.glob("*.json"))}
    comfyui = environment.enter(options.comfyui)
    from comfy_page import ComfyPage, open_browser

    with open_browser() as browser, server(comfyui) as running:
        open_page = partial(ComfyPage, browser, running.port)
        if options.readme:
            take_first_graph(open_page(nodes2=True, size=WIDE), graphs[FIRST])
        if options.out:
            take_graphs(open_page(nodes2=True, size=LARGE), graphs, options.out)
            classic = open_page(nodes2=False, size=LARGE)
            take_graphs(classic, graphs, options.out)
            take_pages(classic, options.out)


@contextlib.contextmanager
def server(comfyui: Path) -> Iterator[ComfyServer]:
    """A ComfyUI with small models under every name that the graphs ask for, and the trained one."""
    from trial.installed_pack import install_pack
    from trial.server import ComfyServer

    from small_model.gallery.preparing import draw_house

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        (base / "input").mkdir()
        shutil.copy(comfyui / "input" / "example.png", base / "input")
        draw_house(base / "input")
        (base / "custom_nodes").mkdir()
        for variable, name in OTHER_PACKS.items():
            if os.environ.get(variable):
                install_pack(Path(os.environ[variable]).absolute(), base / "custom_nodes" / name)
        tables = ("graphs", "trained", "trained_flow")
        paths = cached_models.write_model_paths(base / "model_paths.yaml", comfyui, *tables)
        with ComfyServer(comfyui, base, arguments=["--extra-model-paths-config", str(paths)]) as running:
            yield running


def take_first_graph(page: ComfyPage, graph: Json) -> None:
    """As it looks when the small model has run in it."""
    import thumbnails

    page.load(thumbnails.for_small_model(FIRST, graph), FIRST)
    page.run(["SaveImage"])
    clip = page.fit()
    page.shot(clip).save(README, quality=85, optimize=True)
    say(f"{README} ({README.stat().st_size // 1000} kB)")
    page.close()


def take_graphs(page: ComfyPage, graphs: dict[str, Json], out: Path) -> None:
    for title, graph in graphs.items():
        page.load(graph, title)
        clip = page.fit()
        say(str(page.picture(out / f"{title} {'nodes2' if page.nodes2 else 'classic'}.png", clip)))


def take_pages(page: ComfyPage, out: Path) -> None:
    """The help page of each node, and the template browser."""
    page.page.set_viewport_size({"width": 1600, "height": 2600})
    panel = page.page.get_by_test_id("properties-panel")
    for path in sorted((PACK / "web" / "docs").glob("*.md")):
        page.tidy()
        page.load({"version": 0.4, "nodes": [{"id": 1, "type": path.stem, "pos": [0, 0]}], "links": [], "groups": []})
        page.node_help(page.nodes()[0])
        file = out / f"help {path.stem}.png"
        panel.screenshot(path=file)
        say(str(file))
    page.tidy()
    page.open_templates("PeRFlow")
    say(str(page.picture(out / "templates.png")))
    page.close()


if __name__ == "__main__":
    run_program(main)
