"""The ground of a picture: from the horizon down, and where on it a subject stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .light import SNOW, TIMES, WHITE, Colour, lit, mix, rgb
from .svg import curve, ellipse, line, polygon, rectangle
from .words import Scene


class Ground(NamedTuple):
    shapes: list[str]
    foot: tuple[float, float]  # where the subject touches the ground


GRASS, SAND, ROCK = rgb("#5aa04a"), rgb("#e8d29a"), rgb("#8f7f72")
_RAINY_WATER = np.array([0.45, 0.5, 0.55])
_X = {"left": 38.0, "middle": 64.0, "right": 90.0}


def ground(scene: Scene, random: np.random.Generator) -> Ground:
    """The place of a scene; the subject stands on its side of it, a little moved."""
    x = _X[scene.side] + random.uniform(-5, 5)
    return _PLACES[scene.place](scene, x, random)


def _soil(colour: Colour, scene: Scene, random: np.random.Generator) -> Colour:
    """The ground's own colour under that weather and light."""
    return lit(mix(colour, SNOW, 0.85) if scene.weather == "snowy" else colour, scene.time, random)


def _water(scene: Scene, top: float, random: np.random.Generator) -> list[str]:
    colour = mix(TIMES[scene.time].water, _RAINY_WATER, 0.3 if scene.weather == "rainy" else 0.0)
    shapes = [rectangle(0, top, 128, 129 - top, colour), rectangle(0, top, 128, 2, mix(colour, WHITE, 0.25))]
    glint = mix(colour, TIMES[scene.time].disc, 0.45)
    for _ in range(random.integers(5, 10)):
        y = top + 5 + (123 - top) * random.random() ** 1.3
        width = 4 + 10 * (y - top) / (128 - top)
        x = random.uniform(0, 128)
        shapes.append(line((x, y), (x + width, y), glint, 1.4))
    return shapes


def _cliff(scene: Scene, x: float, random: np.random.Generator) -> Ground:
    horizon, top = random.uniform(84, 94), random.uniform(80, 90)
    face, grass = lit(ROCK, scene.time, random), _soil(GRASS, scene, random)
    half, lean = random.uniform(24, 30), random.uniform(6, 14)
    left = -4.0 if scene.side == "left" else x - half
    right = 132.0 if scene.side == "right" else x + half
    shapes = _water(scene, horizon, random)
    shapes.append(polygon([(left, top), (right, top), (right + lean, 130), (left - lean, 130)], face))
    for _ in range(3):  # cracks
        crack = random.uniform(left + 4, right - 4)
        shapes.append(line((crack, top + 10), (crack + random.uniform(-3, 3), 126), 0.8 * face, 2.2))
    turf = [(left - 2, top - 2), (right + 2, top - 2), (right + 4, top + 6), (left - 4, top + 6)]
    shapes.append(polygon(turf, grass))
    return Ground(shapes, (x, top))


def _hill(scene: Scene, x: float, random: np.random.Generator) -> Ground:
    top = random.uniform(82, 90)
    far, near = _soil(rgb("#7fb069"), scene, random), _soil(GRASS, scene, random)
    base = random.uniform(94, 100)
    shift = random.uniform(-30, 30)
    behind = [((-10, base - 14), (30 + shift, base - 8)), ((100 + shift, base - 22), (140, 130))]
    shapes = [
        rectangle(0, base - 4, 128, 132 - base, far),
        curve((-10, 130), behind, far),
        curve((x - 95, 132), [((x - 40, top - 1), (x, top)), ((x + 40, top - 1), (x + 95, 132))], near),
    ]
    return Ground(shapes, (x, top + 1.5))


def _beach(scene: Scene, x: float, random: np.random.Generator) -> Ground:
    horizon, shore = random.uniform(76, 84), random.uniform(94, 100)
    sand = _soil(SAND, scene, random)
    shapes = _water(scene, horizon, random)
    bend = random.uniform(-8, 8)
    foam = lit(rgb("#f4f8fb"), scene.time)
    for colour, y in ((foam, shore), (sand, shore + 3.0)):
        edge = ((64, y - bend), (130, y + bend / 2))
        shapes.append(curve((-2, y + bend / 2), [edge, ((130, 130), (130, 130)), ((64, 130), (-2, 130))], colour))
    return Ground(shapes, (x, shore + 9))


def _field(scene: Scene, x: float, random: np.random.Generator) -> Ground:
    horizon = random.uniform(82, 90)
    green = _soil(rgb("#8bb44a"), scene, random)
    stripe = _soil(rgb("#d9c552"), scene, random) if scene.weather != "snowy" else 0.88 * green
    shapes = [rectangle(0, horizon, 128, 130 - horizon, green)]
    centre = random.uniform(40, 88)
    for i in range(-4, 5):
        a, b = centre + 9 * i, centre + 34 * i
        shapes.append(polygon([(a, horizon), (a + 3, horizon), (b + 13, 130), (b, 130)], stripe))
    return Ground(shapes, (x, horizon + random.uniform(8, 14)))


def _mountains(scene: Scene, x: float, random: np.random.Generator) -> Ground:
    base = random.uniform(88, 94)
    rock, snow = lit(rgb("#77819a"), scene.time, random), lit(SNOW, scene.time)
    shapes = []
    for peak in (random.uniform(8, 36), random.uniform(92, 122), random.uniform(44, 84)):
        top, half = random.uniform(34, 50), random.uniform(38, 48)
        shapes.append(polygon([(peak - half, base + 2), (peak, top), (peak + half, base + 2)], rock))
        shapes.append(polygon([(peak, top), (peak + half, base + 2), (peak + 0.3 * half, base + 2)], 0.85 * rock))
        cap = 0.34
        y = top + cap * (base + 2 - top)
        edge = ((1, 0), (0.4, -3), (0, 3), (-0.5, -3), (-1, 0))
        shapes.append(polygon([(peak, top), *((peak + x * cap * half, y + down) for x, down in edge)], snow))
    shapes.append(rectangle(0, base, 128, 130 - base, _soil(rgb("#6c9a5a"), scene, random)))
    return Ground(shapes, (x, base + random.uniform(7, 13)))


def _sea(scene: Scene, x: float, random: np.random.Generator) -> Ground:
    horizon = random.uniform(80, 88)
    shapes = _water(scene, horizon, random)
    foot = horizon + random.uniform(12, 18)
    if scene.subject not in ("boat", "balloon"):  # nothing else swims
        rock = _soil(ROCK, scene, random)
        shapes.append(ellipse(x, foot + 5, random.uniform(22, 27), 8, rock))
        shapes.append(ellipse(x, foot + 10, 30, 4, lit(rgb("#f4f8fb"), scene.time), 0.35))
    return Ground(shapes, (x, foot))


_PLACES: dict[str, Callable[[Scene, float, np.random.Generator], Ground]] = {
    place.__name__.strip("_"): place for place in (_cliff, _hill, _beach, _field, _mountains, _sea)
}
