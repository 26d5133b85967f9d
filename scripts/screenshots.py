"""Pictures of the example graphs, the help pages and the template browser as ComfyUI's web page shows them.

`python scripts/screenshots.py --out DIR` takes them. `--thumbnails` writes workflows/<title>.jpg, which the template
browser shows. Graphs with nodes of ComfyUI_IPAdapter_plus need IPADAPTER_PLUS_PATH, the folder of that pack; the one
with nodes of ComfyUI-Flowty-TripoSR needs TRIPOSR_PATH.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import environment
import thumbnail_crop
from environment import PACK, UserError, say
from trial import cached_models
from user_cache import run_program

if TYPE_CHECKING:
    from comfy_page import Json
    from PIL import Image
    from playwright.sync_api import Browser
    from trial.server import ComfyServer

WORKFLOWS = PACK / "workflows"
PLOT = "PeRFlowSchedulePlot"
# TripoSR's pack finds its viewer by its folder's name.
OTHER_PACKS = {"IPADAPTER_PLUS_PATH": "ipadapter_plus", "TRIPOSR_PATH": "ComfyUI-Flowty-TripoSR"}
THUMBNAIL = 768  # pixels, the longer side
LARGEST = 120_000  # bytes of a thumbnail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go")
    parser.add_argument("--graph", action="append", metavar="TITLE", help="only this graph (may be repeated)")
    parser.add_argument("--thumbnails", action="store_true", help="write workflows/<title>.jpg")
    parser.add_argument("--comfyui", metavar="VERSION", help=f"one of {', '.join(environment.VERSIONS)}")
    options = parser.parse_args()
    if not (options.out or options.thumbnails):
        raise UserError("There is nothing to do: give --out DIR or --thumbnails (--help says what they are).")
    graphs = read_graphs(options.graph)
    comfyui = environment.enter(options.comfyui)
    from comfy_page import open_browser

    with open_browser() as browser, server(comfyui) as running:
        if options.thumbnails:
            take_thumbnails(browser, running, graphs)
        if options.out:
            for nodes2 in (False, True):
                take_graphs(browser, running.port, nodes2, graphs, options.out)
            if not options.graph:
                take_pages(browser, running.port, options.out)


def read_graphs(titles: list[str] | None = None) -> dict[str, Json]:
    files = {path.stem: path for path in sorted(WORKFLOWS.glob("*.json"))}
    unknown = sorted(set(titles or ()) - files.keys())
    if unknown:
        raise UserError(f"There is no graph {', '.join(unknown)}: choose from {', '.join(files)}.")
    return {title: json.loads(files[title].read_text(encoding="utf-8")) for title in titles or files}


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
        paths = cached_models.write_model_paths(base / "model_paths.yaml", comfyui, "graphs", "trained")
        with ComfyServer(comfyui, base, arguments=["--extra-model-paths-config", str(paths)]) as running:
            yield running


def take_thumbnails(browser: Browser, running: ComfyServer, graphs: dict[str, Json]) -> None:
    """Of each graph the part that sets it apart, since a card of the template browser is small and square.

    Over it lies what the graph makes, where the small trained model can run it.
    """
    import thumbnail_pictures
    from comfy_page import MARGIN, ComfyPage

    size = THUMBNAIL + MARGIN["left"] + MARGIN["right"], THUMBNAIL + MARGIN["top"] + MARGIN["bottom"]
    page = ComfyPage(browser, running.port, nodes2=False, size=size)
    used_by = thumbnail_crop.users_of_types(read_graphs().values())
    for title, graph in graphs.items():
        page.load(thumbnail_pictures.with_our_picture(graph) if title in thumbnail_pictures.GRAPHS else graph, title)
        missing = {node["type"] for node in page.nodes() if node["missing"]}
        if missing:
            variables = " or ".join(OTHER_PACKS)
            say(f"{title}: no thumbnail, since {', '.join(sorted(missing))} are not here (set {variables}).")
            continue
        for plot in [node for node in page.nodes() if node["type"] == PLOT]:
            page.run([PLOT], only=plot)
        card = page.shot(page.fit([thumbnail_crop.find(page.nodes(), page.groups(), used_by)]))
        if title in thumbnail_pictures.GRAPHS:
            made = thumbnail_pictures.pictures(running, thumbnail_pictures.for_small_model(title, graph))
            card = thumbnail_pictures.over(card, made)
        save_thumbnail(card, WORKFLOWS / f"{title}.jpg")
    page.close()


def save_thumbnail(picture: Image.Image, path: Path) -> None:
    for quality in range(88, 40, -4):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST:
            break
    say(f"{path} ({path.stat().st_size // 1000} kB)")


def take_graphs(browser: Browser, port: int, nodes2: bool, graphs: dict[str, Json], out: Path) -> None:
    from comfy_page import ComfyPage

    page = ComfyPage(browser, port, nodes2=nodes2, size=(2000, 1200))
    for title, graph in graphs.items():
        page.load(graph, title)
        clip = page.fit([thumbnail_crop.around([item["box"] for item in (*page.nodes(), *page.groups())])])
        say(str(page.picture(out / f"{title} {'nodes2' if nodes2 else 'classic'}.png", clip)))
    page.close()


def take_pages(browser: Browser, port: int, out: Path) -> None:
    """The help page of each node, and the template browser."""
    from comfy_page import ComfyPage

    page = ComfyPage(browser, port, nodes2=False, size=(1600, 2600))
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
