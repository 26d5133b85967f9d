"""The sky behind, and the weather in front."""

from __future__ import annotations

import numpy as np

from .light import GREY, TIMES, WHITE, lit, mix, rgb
from .svg import ellipse, line
from .words import Scene


def disc(scene: Scene, horizon: float, random: np.random.Generator) -> list[str]:
    """Sun or moon, and the stars of a clear night."""
    light = TIMES[scene.time]
    shapes = []
    if scene.weather == "clear" and scene.time == "night":
        for _ in range(random.integers(7, 12)):
            radius = random.uniform(1.1, 1.7)
            shapes.append(
                ellipse(random.uniform(2, 126), random.uniform(2, horizon - 20), radius, radius, rgb("#e8ecff"))
            )
    if scene.weather in ("clear", "snowy") or random.random() < 0.4:
        low = scene.time in ("dawn", "sunset")
        x, y = random.uniform(14, 114), horizon - random.uniform(4, 14) if low else random.uniform(14, 30)
        radius = random.uniform(9, 12) if low else random.uniform(7, 9)
        shapes.append(ellipse(x, y, radius * 1.7, radius * 1.7, light.disc, 0.25))
        shapes.append(ellipse(x, y, radius, radius, light.disc))
    return shapes


def clouds(scene: Scene, random: np.random.Generator) -> list[str]:
    many = {"clear": 0, "cloudy": 5, "rainy": 6, "snowy": 2}[scene.weather]
    colour = lit(mix(WHITE, GREY, 0.75 if scene.weather == "rainy" else 0.05), scene.time)
    shapes = []
    for _ in range(many + int(random.integers(0, 2))):
        x, y, size = random.uniform(0, 128), random.uniform(8, 46), random.uniform(0.7, 1.25)
        for dx, dy, rx, ry in ((0, 0, 15, 5.5), (-6, -4, 8, 6), (5, -5, 9, 7)):
            shapes.append(ellipse(x + dx * size, y + dy * size, rx * size, ry * size, colour))
    return shapes


def falling(scene: Scene, random: np.random.Generator) -> list[str]:
    """Rain or snow before everything else."""
    if scene.weather == "rainy":
        colour = mix(lit(rgb("#dfe8f4"), scene.time), WHITE, 0.25)
        slant = random.uniform(-5, 5)
        starts = random.uniform((-4, -8), (132, 124), (24, 2))
        return [line((x, y), (x + slant, y + 13), colour, 1.5, 0.6) for x, y in starts]
    if scene.weather == "snowy":
        colour = mix(lit(WHITE, scene.time), WHITE, 0.5)
        flakes = random.uniform((0, 0, 1.5), (128, 128, 2.4), (30, 3))
        return [ellipse(x, y, radius, radius, colour, 0.9) for x, y, radius in flakes]
    return []
