"""Shapes as SVG text. Lengths are in units of a picture 128 wide and high, y downwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .light import Colour, hexed

Point = Sequence[float] | np.ndarray  # x, y


def polygon(points: Iterable[Point], colour: Colour, opacity: float = 1.0) -> str:
    text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    return f'<polygon points="{text}" fill="{hexed(colour)}" fill-opacity="{opacity:.2f}"/>'


def rectangle(x: float, y: float, width: float, height: float, colour: Colour) -> str:
    return polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour)


def ellipse(x: float, y: float, rx: float, ry: float, colour: Colour, opacity: float = 1.0) -> str:
    return (
        f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{rx:.2f}" ry="{ry:.2f}" fill="{hexed(colour)}"'
        f' fill-opacity="{opacity:.2f}"/>'
    )


def line(a: Point, b: Point, colour: Colour, width: float, opacity: float = 1.0) -> str:
    return (
        f'<line x1="{a[0]:.2f}" y1="{a[1]:.2f}" x2="{b[0]:.2f}" y2="{b[1]:.2f}" stroke="{hexed(colour)}"'
        f' stroke-width="{width:.2f}" stroke-opacity="{opacity:.2f}" stroke-linecap="round"/>'
    )


def curve(start: Point, pieces: Iterable[tuple[Point, Point]], colour: Colour) -> str:
    """A filled outline of quadratic pieces, each a control point and an end, closed by a straight line."""
    text = f"M{start[0]:.2f} {start[1]:.2f}"
    for (cx, cy), (x, y) in pieces:
        text += f" Q{cx:.2f} {cy:.2f} {x:.2f} {y:.2f}"
    return f'<path d="{text} Z" fill="{hexed(colour)}"/>'


def gradient(name: str, colours: Sequence[Colour]) -> str:
    """From top to bottom; url(#name) paints with it."""
    last = len(colours) - 1
    stops = "".join(f'<stop offset="{i / last:.2f}" stop-color="{hexed(c)}"/>' for i, c in enumerate(colours))
    return f'<linearGradient id="{name}" x1="0" y1="0" x2="0" y2="1">{stops}</linearGradient>'
