"""Draws docs/method.png and docs/method-flow.png, the figures of docs/method.md, from perflow_core.

`python scripts/draw_method.py` needs Python and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment
from environment import PACK, say
from user_cache import run_program

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from method_example import Paths
    from torch import Tensor

FOLDER = PACK / "docs"
SIZE, RESOLUTION = (8, 4), 200  # inches and dots an inch: shown at 800 pixels, it is twice as sharp

# Okabe and Ito's blue and vermilion, told apart by every kind of colour sight; the lines differ in style too.
INK, FAINT, BAND = "#1f2430", "#6b7280", "#f1f4f8"
BASE, PERFLOW, STRAY = "#9aa3b2", "#0072b2", "#d55e00"


def main() -> None:
    environment.enter()  # from here on inside our environment
    sys.path.append(str(PACK))
    pyplot = house_pyplot()
    for name, draw_left, draw_right in (("method", draw_chords, draw_paths), ("method-flow", draw_line, draw_flow)):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=SIZE, width_ratios=(1, 1.1), layout="constrained")
        draw_left(left)
        draw_right(right)
        picture = FOLDER / f"{name}.png"
        figure.savefig(picture, dpi=RESOLUTION)
        shrink(picture)
        say(f"{picture} ({picture.stat().st_size / 1000:.0f} kB)")


def house_pyplot() -> Any:
    """matplotlib.pyplot in the style of our figures, without a window."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    matplotlib.rc("font", size=10)
    matplotlib.rc("text", color=INK)
    matplotlib.rc("axes", titlesize=10.5, labelcolor=INK, edgecolor=FAINT)
    matplotlib.rc("axes.spines", top=False, right=False)
    matplotlib.rc("xtick", color=FAINT)
    matplotlib.rc("ytick", color=FAINT)
    return plt


def draw_chords(axes: Axes) -> None:
    """Noise s over signal c: the base model's arc, and PeRFlow's chord of it in every window."""
    import method_example
    import torch

    chord, alpha_bar = method_example.window_chord(), method_example.alphas_cumprod()
    c, s = chord.coefficients(torch.arange(1001, dtype=torch.float64))
    axes.plot(alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), color=BASE, lw=4)
    axes.plot(c, s, color=PERFLOW, lw=1.8)
    axes.plot(chord.c, chord.s, "o", color=PERFLOW, ms=6, clip_on=False, zorder=3)
    for x, y, T in zip(chord.c.tolist(), chord.s.tolist(), chord.windows.edge_timesteps, strict=True):
        axes.plot((0, x), (0, y), color=BASE, lw=0.8, ls=":", zorder=0)
        axes.annotate(f"{T:g}", (x, y), (1.06 * x, 1.06 * y), ha="center" if x < 0.1 else "left", va="bottom")
    axes.text(1.0, 0.33, "base model", color=FAINT, rotation=-74, ha="left", va="center")
    axes.text(0.87, 0.24, "PeRFlow", color=PERFLOW, rotation=-72, ha="right", va="center")
    ray = axes.text(0.5, 0.36, "$\\sigma$: the slope of a ray", color=FAINT, ha="center", va="bottom", rotation=34.7)
    ray.set_rotation_mode("anchor")
    axes.set(xlim=(0, 1.14), ylim=(0, 1.14), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set(xlabel="signal c (beside the dots: timestep)", ylabel="noise s")
    axes.set_title("Trained: chords of the noise table's arc", loc="left")


def draw_paths(axes: Axes) -> None:
    """X over sigma: one pixel's exact path, four steps of the base model, four of PeRFlow."""
    import method_example

    found = method_example.paths()
    for w in range(0, method_example.WINDOWS, 2):
        axes.axvspan(w, w + 1, color=BAND, lw=0, zorder=0)
    edges = place(found.sigmas, found.sigmas)
    draw_three(axes, place(found.fine_sigmas, found.sigmas), edges, found)
    timesteps = method_example.window_chord().windows.edge_timesteps
    names = [f"{sigma:.3g}\n{T:g}" for sigma, T in zip(found.sigmas.tolist(), timesteps, strict=True)]
    axes.set_xticks(edges, names)
    axes.set(xlabel="noise level $\\sigma$ = s / c, and timestep", ylabel="X = z / c", xlim=(-0.1, 4.1), ylim=(0, 1.75))
    axes.set_title("Sampled: straight in $\\sigma$, window by window", loc="left")


def draw_three(axes: Axes, fine: Tensor, edges: Tensor, found: Paths) -> None:
    """The exact path, four steps of the base model, and four of PeRFlow; fine and edges: where their levels stand."""
    axes.plot(fine, found.base, color=BASE, lw=4, label=f"base model, {len(found.base) - 1} steps")
    stray = "base model, 4 steps:\nthe slope at the window's start"
    axes.plot(edges, found.base_steps, "--s", color=STRAY, lw=1.8, ms=5, label=stray)
    straight = "PeRFlow, 4 steps:\nthe slope to the window's end"
    axes.plot(edges, found.perflow_steps, "-o", color=PERFLOW, lw=1.8, ms=6, label=straight)
    axes.legend(loc="upper left", frameon=False, fontsize=9.5, labelspacing=0.8)


def draw_line(axes: Axes) -> None:
    """A flow model's signal and noise: the path of the levels has no arc, so a chord of it lies on it."""
    import method_example

    chord = method_example.flow_chord()
    axes.plot((0, 1), (1, 0), color=BASE, lw=4)
    sigma = chord.s
    axes.plot(1 - sigma, sigma, "-o", color=PERFLOW, lw=1.8, ms=6, clip_on=False, zorder=3)
    for level, T in zip(sigma.tolist(), chord.windows.edge_timesteps, strict=True):
        axes.annotate(f"{T:g}", (1 - level, level), (1 - level + 0.04, level + 0.02), va="bottom")
    axes.text(0.42, 0.42, "base model and PeRFlow: $\\sigma$ = t", color=FAINT, rotation=-45, ha="center", va="center")
    axes.set(xlim=(0, 1.14), ylim=(0, 1.14), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set(xlabel="signal 1 - $\\sigma$ (beside the dots: 1000 u)", ylabel="noise $\\sigma$")
    axes.set_title("A flow model's levels: a line already", loc="left")


def draw_flow(axes: Axes) -> None:
    """x over sigma, at the windows' true widths."""
    import method_example

    found = method_example.flow_paths()
    for start, end in found.sigmas.unfold(0, 2, 2).tolist():
        axes.axvspan(end, start, color=BAND, lw=0, zorder=0)
    draw_three(axes, found.fine_sigmas, found.sigmas, found)
    axes.set_xticks(found.sigmas.tolist(), [f"{sigma:g}" for sigma in found.sigmas.tolist()])
    axes.set(xlabel="noise level $\\sigma$", ylabel="x", xlim=(1.02, -0.02), ylim=(0, 2.4))
    axes.set_title("Sampled: straight in $\\sigma$, window by window", loc="left")


def place(sigma: Tensor, edges: Tensor) -> Tensor:
    """Where a level stands on an axis that gives every window the same width and is linear in each; shape of sigma."""
    import torch

    w = torch.searchsorted(-edges, -sigma, right=True).clamp(1, len(edges) - 1) - 1
    return w + (edges[w] - sigma) / (edges[w] - edges[w + 1])


def shrink(picture: Path) -> None:
    """A palette of 256 colours, of which flat drawings have few: a third of the size, no visible difference."""
    from PIL import Image

    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    run_program(main)
