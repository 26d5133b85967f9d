"""The picture of a training run: the loss over the steps, a line for each window."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ..errors import counted
from .canvas import BOTTOM, LEFT, RIGHT, TOP, Canvas

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
    _draw_frame(canvas, steps, low, high)
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


def _draw_frame(canvas: Canvas, steps: int, low: float, high: float) -> None:
    for level in (scale * 10.0**power for power in range(-9, 4) for scale in (1, 2, 5)):
        share = (math.log10(level) - low) / (high - low)
        if 0 <= share <= 1:
            canvas.tick_left(BOTTOM - share * (BOTTOM - TOP), f"{level:g}")
    for share in (0, 0.5, 1):
        canvas.tick_below(LEFT + share * (RIGHT - LEFT), f"{share * steps:.0f}")
    canvas.axes("step")
    canvas.text(LEFT, 30, f"loss by window, {counted(steps, 'step')}", "lm")
