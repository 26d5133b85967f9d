"""Draws the pictures of the pack's page in the Comfy registry: docs/registry/icon.png and docs/registry/banner.png.

`python scripts/draw_registry.py [--out DIR]` needs Python and nothing else. Both show the path of docs/method.png, as
perflow_core computes it: the base model's curve in four windows, and PeRFlow's straight step in each of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment
from draw_method import house_pyplot, place, shrink
from environment import PACK, say
from user_cache import run_program

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

FOLDER = PACK / "docs" / "registry"
SHEET = PACK / "docs" / "four-steps.jpg"
ICON, BANNER = (400, 400), (1260, 540)  # pixels; the registry asks for a square of at most 400, and for 21:9
RESOLUTION = 100  # dots an inch

NIGHT, WINDOWS, PAPER, FAINT = "#0f1726", ("#22324f", "#182339"), "#f4f7fb", "#9fb0c8"
CURVE, STEPS = "#8394b0", "#56b4e9"  # Okabe and Ito's light blue
SEED = 1
GRAIN = 40  # noise is drawn in that many squares a side, so that it is seen in a small picture
CAPTIONS = ("noise", "step 1", "step 2", "step 3", "step 4")


def main() -> None:
    environment.enter()  # from here on inside our environment
    sys.path.append(str(PACK))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("icon", draw_icon), ("banner", draw_banner)):
        path = out / f"{name}.png"
        draw().savefig(path, dpi=RESOLUTION, facecolor=NIGHT)
        shrink(path)
        say(f"{path} ({path.stat().st_size / 1000:.0f} kB)")


def draw_icon() -> Figure:
    figure = empty_figure(ICON)
    axes = chart(figure, (0, 0, 1, 1))
    draw_path(axes, width=11)
    axes.set(xlim=(-0.5, 4.5), ylim=(-0.35, 2.1))
    return figure


def draw_banner() -> Figure:
    """Left the words; right the path over its windows, and under each edge the picture at that noise level."""
    figure = empty_figure(BANNER)
    figure.text(0.045, 0.62, "PeRFlow", color=PAPER, fontsize=50, fontweight="bold", va="center")
    figure.text(0.047, 0.44, "Stable Diffusion\nin four steps", color=PAPER, fontsize=22, va="center", linespacing=1.35)
    figure.text(0.047, 0.27, "a node pack for ComfyUI", color=FAINT, fontsize=14, va="center")
    left, right = 0.375, 0.975
    axes = chart(figure, (left, 0.4, right - left, 0.55))
    draw_path(axes, width=6)
    axes.set(xlim=(-0.5, 4.5), ylim=(-0.1, 1.8))
    between = (right - left) / 5  # the distance of two edges, as the axes show 5 windows' widths
    side = 0.86 * between
    height = side * BANNER[0] / BANNER[1]
    for edge, (picture, caption) in enumerate(zip(pictures(), CAPTIONS, strict=True)):
        middle = left + (edge + 0.5) * between
        below = figure.add_axes((middle - side / 2, 0.12, side, height))
        below.imshow(picture, interpolation="lanczos")
        below.set_axis_off()
        figure.text(middle, 0.065, caption, color=FAINT, fontsize=12, ha="center", va="center")
    return figure


def empty_figure(pixels: tuple[int, int]) -> Figure:
    width, height = (side / RESOLUTION for side in pixels)
    figure: Figure = house_pyplot().figure(figsize=(width, height))
    return figure


def chart(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    axes = figure.add_axes(box)
    axes.set_axis_off()
    return axes


def draw_path(axes: Axes, width: float) -> None:
    """One pixel from noise to picture, all windows equally wide; `width` of PeRFlow's line in points."""
    import method_example

    found = method_example.paths()
    for w in range(method_example.WINDOWS):
        axes.axvspan(w, w + 1, color=WINDOWS[w % 2], lw=0, zorder=0)
    fine, edges = place(found.fine_sigmas, found.sigmas), place(found.sigmas, found.sigmas)
    axes.plot(fine, found.base, color=CURVE, lw=1.2 * width, solid_capstyle="round")
    axes.plot(edges, found.perflow_steps, color=STEPS, lw=width, solid_joinstyle="round")
    axes.plot(edges, found.perflow_steps, "o", color=PAPER, ms=2.2 * width, mec=STEPS, mew=0.6 * width, zorder=3)


def pictures() -> list[Any]:
    """A picture that PeRFlow made in four steps, at the noise levels of the window edges: c x0 + s noise, [H, W, 3].

    The noise is as strong as the picture, as it is where models work, among latents of unit variance.
    """
    import method_example
    import numpy as np
    import torch

    x0 = torch.from_numpy(np.array(balloon())).double() / 127.5 - 1
    chord = method_example.window_chord()
    noise = x0.std() * coarse_noise(x0.shape[0])
    levels = zip(chord.c[:-1].tolist(), chord.s[:-1].tolist(), strict=True)
    noisy = [c * x0 + s * noise for c, s in levels]
    return [((z + 1) / 2).clamp(0, 1).numpy() for z in (*noisy, x0)]


def coarse_noise(side: int) -> Tensor:
    import torch

    grains = torch.randn(1, 3, GRAIN, GRAIN, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    return torch.nn.functional.interpolate(grains, (side, side))[0].movedim(0, 2)


def balloon() -> Any:
    """Row 4, column 3 of the demo's sheet, which is stored smaller than it is drawn."""
    from demo_graph import ENLARGED
    from demo_sheet import COLUMNS
    from PIL import Image

    from perflow_core.drawing.picture_sheet import SENTENCES as LAYOUT

    with Image.open(SHEET) as sheet:
        side, row, column = 128 * ENLARGED, 3, 2
        across, down = side + LAYOUT.gap, LAYOUT.above + side + LAYOUT.gap
        scale = sheet.width / (LAYOUT.left + across * len(COLUMNS))
        left, top = LAYOUT.left + column * across, LAYOUT.top + row * down + LAYOUT.above
        inside = [scale * (at + inward) for at, inward in ((left, 3), (top, 3), (left + side, -3), (top + side, -3))]
        return sheet.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS, box=tuple(inside))


if __name__ == "__main__":
    run_program(main)
