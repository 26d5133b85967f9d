"""The picture of a schedule: noise level over timestep, window by window."""

from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import counted
from ..sampling.chord import WindowChord
from ..sampling.windows import NUM_TIMESTEPS
from .canvas import BOTTOM, LEFT, RIGHT, TOP, Canvas

SIGMA_TICKS = [0.03, 0.1, 0.3, 1, 3, 10]

BANDS = ["#eaf1fb", "#f7fafe"]
STOCK, CHORD, STEP = "#9aa3b2", "#2563eb", "#dc2626"


class Axes:
    """Pixel places of timesteps (1000 on the left) and noise levels (logarithmic)."""

    def __init__(self, sigma_min: float, sigma_max: float):
        self.low, self.high = np.log(sigma_min * 0.75), np.log(sigma_max * 2)

    def x(self, T: float) -> float:
        return LEFT + (1 - T / NUM_TIMESTEPS) * (RIGHT - LEFT)

    def y(self, sigma: float) -> float:
        share = (np.log(sigma) - self.low) / (self.high - self.low)
        return BOTTOM - float(np.clip(share, 0, 1)) * (BOTTOM - TOP)


def draw_schedule(chord: WindowChord, alphas_cumprod: Tensor, sigmas: Tensor) -> Image.Image:
    """RGB picture of 800 x 600: the windows as bands, the chord, the base model's curve, the steps as dots.

    alphas_cumprod: the base model's table [1000]; sigmas: the levels of n steps, [n + 1], or [0] for none.
    """
    chord = chord.to("cpu", torch.float64)
    axes = Axes(float(chord.s[-1] / chord.c[-1]), float(chord.s[0] / chord.c[0]))
    canvas = Canvas()
    _draw_frame(canvas, axes, chord)
    _draw_curves(canvas, axes, chord, alphas_cumprod)
    _draw_steps(canvas, axes, chord, sigmas)
    steps = max(len(sigmas) - 1, 0)
    canvas.text(LEFT, 36, f"{counted(steps, 'step')}, {counted(chord.K, 'window')}", "lm")
    return canvas.finished()


def _draw_frame(canvas: Canvas, axes: Axes, chord: WindowChord) -> None:
    edges = chord.edge_timesteps
    for w, (start, end) in enumerate(pairwise(edges)):
        canvas.box(axes.x(start), TOP, axes.x(end), BOTTOM, BANDS[w % 2])
    labelled = edges if chord.K <= 10 else [edges[0], edges[-1]]
    for T in labelled:
        canvas.tick_below(axes.x(T), f"{T:g}")
    for sigma in SIGMA_TICKS:
        canvas.tick_left(axes.y(sigma), f"{sigma:g}")
    canvas.axes("timestep that the UNet sees")
    canvas.text(LEFT, TOP - 22, "noise level sigma", "lm")


def _draw_curves(canvas: Canvas, axes: Axes, chord: WindowChord, alphas_cumprod: Tensor) -> None:
    stock = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().tolist()
    canvas.line([(axes.x(i + 1), axes.y(sigma)) for i, sigma in enumerate(stock)], STOCK, 3)
    T = torch.linspace(0, NUM_TIMESTEPS, 801, dtype=torch.float64)
    path = zip(T.tolist(), chord.sigma(T).tolist(), strict=True)
    canvas.line([(axes.x(t), axes.y(sigma)) for t, sigma in path], CHORD, 4)
    for y, colour, name in ((36, CHORD, "PeRFlow's path"), (TOP - 38, STOCK, "base model")):
        canvas.line([(RIGHT - 250, y), (RIGHT - 206, y)], colour, 5)
        canvas.text(RIGHT - 194, y, name, "lm")


def _draw_steps(canvas: Canvas, axes: Axes, chord: WindowChord, sigmas: Tensor) -> None:
    levels = sigmas[:-1].tolist()
    T = chord.path_timesteps(sigmas[:-1])
    last_label = float("inf")
    for t, sigma in zip(T, levels, strict=True):
        x, y = axes.x(t), axes.y(sigma)
        canvas.line([(x, y), (x, BOTTOM)], STEP, 1)
        canvas.dot(x, y, 9, STEP)
        if last_label - t > 80:  # timesteps: closer labels would overlap
            canvas.text(x + 12, y - 8, f"{t:.4g}", "lb")
            last_label = t
