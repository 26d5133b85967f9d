"""Plots of 800 x 600: a training run's loss, and the noise levels of a schedule."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import counted
from ..sampling.chord import WindowChord
from ..sampling.windows import NUM_TIMESTEPS

SIZE = (800, 600)  # with letters of this size it reads at half the width, as on a node
LETTERS = 26
OVERSAMPLING = 2  # Pillow's lines have hard edges: draw large, then shrink
LEFT, TOP, RIGHT, BOTTOM = 90, 110, 770, 494  # of the field between the axes
PAPER, INK, FAINT = "#ffffff", "#1f2430", "#5b6472"


class Canvas:
    """Pillow drawing in the coordinates of the finished picture."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIZE[0] * OVERSAMPLING, SIZE[1] * OVERSAMPLING), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def line(self, points: list[tuple[float, float]], colour: str, width: float) -> None:
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self.pen.line(scaled, colour, round(width * OVERSAMPLING), joint="curve")

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        self.pen.rectangle([value * OVERSAMPLING for value in (x0, y0, x1, y1)], colour)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        corners = [value * OVERSAMPLING for value in (x - radius, y - radius, x + radius, y + radius)]
        self.pen.ellipse(corners, colour, PAPER, 2 * OVERSAMPLING)

    def text(self, x: float, y: float, text: str, anchor: str = "mm", colour: str = INK) -> None:
        font = ImageFont.load_default(LETTERS * OVERSAMPLING)
        self.pen.text((x * OVERSAMPLING, y * OVERSAMPLING), text, colour, font, anchor)

    def axes(self, name: str) -> None:
        """The left and the lower axis, and the name of the lower one."""
        self.line([(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], FAINT, 1.5)
        self.text((LEFT + RIGHT) / 2, BOTTOM + 72, name)

    def tick_left(self, y: float, label: str) -> None:
        self.line([(LEFT - 8, y), (LEFT, y)], FAINT, 1.5)
        self.text(LEFT - 14, y, label, "rm", FAINT)

    def tick_below(self, x: float, label: str) -> None:
        self.line([(x, BOTTOM), (x, BOTTOM + 8)], FAINT, 1.5)
        self.text(x, BOTTOM + 28, label, colour=FAINT)

    def finished(self) -> Image.Image:
        return self.image.resize(SIZE, Image.Resampling.LANCZOS)


COLOURS = ["#dc2626", "#d97706", "#059669", "#2563eb", "#7c3aed", "#db2777", "#5b6472", "#0891b2"]
SPANS = 60  # points of a line at most: single losses scatter, so each point is the mean of those around
LABELLED = 8  # windows that the legend names


def draw_losses(by_window: Sequence[Mapping[int, float]], K: int) -> Image.Image:
    """RGB picture of 800 x 600; the loss on a logarithmic scale.

    by_window: for each step the losses of those of the K windows that it had.
    """
    steps = len(by_window)
    of_window = ([(step, losses[w]) for step, losses in enumerate(by_window) if w in losses] for w in range(K))
    lines = [_smooth(points, steps) for points in of_window]
    levels = [loss for line in lines for _, loss in line if loss > 0] or [1.0]
    low, high = math.log10(min(levels)) - 0.05, math.log10(max(levels)) + 0.05

    def place(step: float, loss: float) -> tuple[float, float]:
        across = (step + 0.5) / max(steps, 1)
        up = (math.log10(max(loss, min(levels))) - low) / (high - low)
        return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)

    canvas = Canvas()
    _draw_loss_frame(canvas, steps, low, high)
    for w, line in enumerate(lines):
        colour = COLOURS[w % len(COLOURS)]
        points = [place(*point) for point in line]
        if len(points) > 1:
            canvas.line(points, colour, 4)
        for x, y in points if len(points) == 1 else []:
            canvas.dot(x, y, 7, colour)
        if w < LABELLED:
            x = LEFT + (w % 4) * 170
            y = 66 + 30 * (w // 4) if len(lines) > 4 else 80
            canvas.line([(x, y), (x + 34, y)], colour, 5)
            canvas.text(x + 44, y, f"window {w + 1}", "lm")
    return canvas.finished()


def _smooth(points: Sequence[tuple[int, float]], steps: int) -> list[tuple[float, float]]:
    """Mean step and loss of each of at most SPANS parts of the run."""
    width = max(1, math.ceil(steps / SPANS))
    spans: dict[int, list[tuple[int, float]]] = {}
    for step, loss in points:
        spans.setdefault(step // width, []).append((step, loss))
    return [tuple(np.mean(span, axis=0).tolist()) for _, span in sorted(spans.items())]


def _draw_loss_frame(canvas: Canvas, steps: int, low: float, high: float) -> None:
    for level in (scale * 10.0**power for power in range(-9, 4) for scale in (1, 2, 5)):
        share = (math.log10(level) - low) / (high - low)
        if 0 <= share <= 1:
            canvas.tick_left(BOTTOM - share * (BOTTOM - TOP), f"{level:g}")
    for share in (0, 0.5, 1):
        canvas.tick_below(LEFT + share * (RIGHT - LEFT), f"{share * steps:.0f}")
    canvas.axes("step")
    canvas.text(LEFT, 30, f"loss by window, {counted(steps, 'step')}", "lm")


SIGMA_TICKS = [0.03, 0.1, 0.3, 1, 3, 10]
FLOW_TICKS = [0, 0.25, 0.5, 0.75, 1]

BANDS = ["#eaf1fb", "#f7fafe"]
STOCK, CHORD, STEP = "#9aa3b2", "#2563eb", "#dc2626"


class Axes:
    """Pixel places of timesteps (1000 on the left) and noise levels: logarithmic, or even for a flow model's 0 to 1."""

    def __init__(self, chord: WindowChord):
        self.of_flow = not chord.windows.whole
        low, high = float(chord.s[-1] / chord.c[-1]), float(chord.s[0] / chord.c[0])
        self.low = 0.0 if self.of_flow else math.log(low * 0.75)
        self.high = 1.1 if self.of_flow else math.log(high * 2)
        self.ticks = FLOW_TICKS if self.of_flow else SIGMA_TICKS

    def x(self, T: float) -> float:
        return LEFT + (1 - T / NUM_TIMESTEPS) * (RIGHT - LEFT)

    def y(self, sigma: float) -> float:
        share = ((sigma if self.of_flow else np.log(sigma)) - self.low) / (self.high - self.low)
        return BOTTOM - float(np.clip(share, 0, 1)) * (BOTTOM - TOP)


def draw_schedule(chord: WindowChord, alphas_cumprod: Tensor | None, sigmas: Tensor) -> Image.Image:
    """RGB picture of 800 x 600: the windows as bands, the chord, the base model's curve, the steps as dots.

    alphas_cumprod: the base model's table [1000], None for a flow model, whose path is the base's own; sigmas: the
    levels of n steps, [n + 1], or [0] for none.
    """
    chord = chord.to("cpu", torch.float64)
    axes = Axes(chord)
    canvas = Canvas()
    _draw_schedule_frame(canvas, axes, chord)
    _draw_curves(canvas, axes, chord, alphas_cumprod)
    _draw_steps(canvas, axes, chord, sigmas)
    steps = max(len(sigmas) - 1, 0)
    canvas.text(LEFT, 36, f"{counted(steps, 'step')}, {counted(len(chord.windows.own), 'window')}", "lm")
    return canvas.finished()


def _draw_schedule_frame(canvas: Canvas, axes: Axes, chord: WindowChord) -> None:
    edges = chord.windows.edge_timesteps
    for w, (start, end) in enumerate(pairwise(edges)):
        if w in chord.windows.own:  # the rest of the path is another model's
            canvas.box(axes.x(start), TOP, axes.x(end), BOTTOM, BANDS[w % 2])
    labelled = edges if chord.K <= 10 else [edges[0], edges[-1]]
    for T in labelled:
        canvas.tick_below(axes.x(T), f"{T:.4g}")
    for sigma in axes.ticks:
        canvas.tick_left(axes.y(sigma), f"{sigma:g}")
    canvas.axes("time before the shift, times 1000" if axes.of_flow else "timestep that the UNet sees")
    canvas.text(LEFT, TOP - 22, "noise level sigma", "lm")


def _draw_curves(canvas: Canvas, axes: Axes, chord: WindowChord, alphas_cumprod: Tensor | None) -> None:
    named = [(36, CHORD, "PeRFlow's path")]
    if alphas_cumprod is not None:
        stock = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().tolist()
        canvas.line([(axes.x(i + 1), axes.y(sigma)) for i, sigma in enumerate(stock)], STOCK, 3)
        named.append((TOP - 38, STOCK, "base model"))
    T = torch.linspace(0, NUM_TIMESTEPS, 801, dtype=torch.float64)
    path = zip(T.tolist(), chord.sigma(T).tolist(), strict=True)
    canvas.line([(axes.x(t), axes.y(sigma)) for t, sigma in path], CHORD, 4)
    for y, colour, name in named:
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
            canvas.text(x + 12, y - 8, f"{sigma:.3g}" if axes.of_flow else f"{t:.4g}", "lb")
            last_label = t
