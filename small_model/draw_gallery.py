"""Draws docs/gallery.md and its pictures: what PeRFlow does to the small trained model, beside the base model.

`python small_model/draw_gallery.py [--only NAME | --skip NAME ...]` needs Python and nothing else. Everything is made
by a real ComfyUI with the files that the demo uses; the LoRA of another style (`lora`) is trained on the way, for an
hour on one core of a CPU.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "scripts"), str(REPOSITORY)]

import environment  # noqa: E402
from demo import model_paths, run_folder, small_model  # noqa: E402
from environment import PACK, say  # noqa: E402
from user_cache import run_program  # noqa: E402

if TYPE_CHECKING:
    from sampled_sheet import Pictures, Sheet

PAGE, FOLDER = PACK / "docs" / "gallery.md", PACK / "docs" / "gallery"
ENLARGED = 2
HEAD = """# Gallery

The small model of this project makes all pictures on this page
([what it is and how good it is](../small_model/README.md)). They are 128 pixels wide, sampled with ComfyUI's own
nodes and this pack's. All pictures in a row start from the same noise. The sampler is `euler`. Unless the text says
otherwise, CFG is 2, for the base model and for PeRFlow. The text under a sheet says how far
each column is from its first one: the root mean square of the difference, in levels of 0 to 255. At about 10 the
picture is the same but for small things, such as a cloud or a flake; at 30 light or objects are others. These few
pictures only show what to expect; `python small_model/measure_quality.py` measures how good pictures are on average.

`python small_model/draw_gallery.py` makes this page.
"""


def main() -> None:
    comfyui = environment.enter()
    from trial.picture_graph import PictureGraph
    from trial.server import ComfyServer

    from small_model.gallery import preparing
    from small_model.gallery.sheets import SHEETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SHEETS, help="only this picture, without the page")
    parser.add_argument("--skip", action="append", choices=SHEETS, default=[], help="leave this one out of the page")
    options = parser.parse_args()
    wanted = [name for name in options.only or SHEETS if name not in options.skip]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # lets the server be put away
    checkpoint, delta = small_model(comfyui)
    sections = []
    with run_folder() as base:
        (base / "input").mkdir()
        preparing.draw_inputs(base / "input")
        arguments = ["--extra-model-paths-config", str(model_paths(base, checkpoint, delta))]
        with ComfyServer(comfyui, base, arguments=arguments) as server:
            prepared = preparing.prepare(server, checkpoint.name, delta.name, "lora" in wanted)
            for name in wanted:
                graph = PictureGraph(checkpoint.name, delta.name)
                sheet = SHEETS[name](graph, prepared)
                say(f"Sampling: {sheet.title}.")
                pictures = sheet.sampled(server, graph)
                FOLDER.mkdir(exist_ok=True)
                sheet.drawn(pictures, ENLARGED).save(FOLDER / f"{name}.jpg", quality=88, optimize=True)
                sections.append(section(name, sheet, pictures))
                say(sections[-1])
    if not options.only:
        PAGE.write_text("\n".join([HEAD, *sections]), encoding="utf-8")
        say(str(PAGE))


def section(name: str, sheet: Sheet, pictures: Pictures) -> str:
    """The sheet's part of the page."""
    picture = f"![{sheet.title}: {', '.join(sheet.columns)}](gallery/{name}.jpg)"
    lines = [f"## {sheet.title}", "", sheet.words, "", picture]
    if sheet.to is not None:
        lines += ["", f"Difference to “{sheet.columns[sheet.to]}”: {sheet.differences(pictures)}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_program(main)
