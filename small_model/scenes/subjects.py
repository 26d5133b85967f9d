"""The thing in a picture. Each is drawn with its foot at (0, 0), y downwards, some 50 units high at size 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .light import PAINT, SNOW, WHITE, Colour, lit, mix, rgb
from .svg import curve, ellipse, line, polygon, rectangle
from .words import Scene

_STONE, _WOOD, _BARK, _TILE = rgb("#b9b2a6"), rgb("#8a6242"), rgb("#7d6a58"), rgb("#6b4a44")
_GREY_STONE = np.array([0.5, 0.5, 0.56])
_SCALE = {"small": 0.72, "medium": 1.0, "large": 1.32}


class Paints:
    """The colours that one subject is painted with, in the light of its scene."""

    def __init__(self, scene: Scene, random: np.random.Generator) -> None:
        self.scene = scene
        self.main = lit(PAINT[scene.colour], scene.time, random)
        lamp = scene.time in ("night", "sunset", "dawn")
        self.window = rgb("#ffdf70") if lamp else rgb("#3b4a5c")
        self.lamp = rgb("#fff2a8")
        self.snowy = scene.weather == "snowy"

    def lit(self, colour: Colour) -> Colour:
        return lit(colour, self.scene.time)

    def roof(self, colour: Colour) -> Colour:
        """White where it snows."""
        return self.lit(SNOW) if self.snowy else colour


def subject(scene: Scene, foot: tuple[float, float], random: np.random.Generator) -> str:
    """The subject standing (a balloon: floating) at `foot`."""
    scale = _SCALE[scene.size] * random.uniform(0.94, 1.06)
    x, y = foot
    if scene.subject == "balloon":
        y = random.uniform(58, 66) + 14 * (scale - 1)
    shapes = _SUBJECTS[scene.subject](Paints(scene, random), random)
    return f'<g transform="translate({x:.2f} {y:.2f}) scale({scale:.3f})">{"".join(shapes)}</g>'


def _lighthouse(paints: Paints, random: np.random.Generator) -> list[str]:
    height = random.uniform(44, 52)
    white = paints.lit(rgb("#f6f3ec")) if paints.scene.colour != "white" else paints.lit(rgb("#59616c"))
    shapes = []
    for i in range(5):  # bands
        low, high = i / 5, (i + 1) / 5
        a, b, bottom, top = 9 - 4 * low, 9 - 4 * high, -height * low, -height * high
        shapes.append(polygon([(-a, bottom), (a, bottom), (b, top), (-b, top)], white if i % 2 else paints.main))
    shapes.append(rectangle(-2.2, -8, 4.4, 8, paints.lit(_WOOD)))
    shapes.append(rectangle(-8, -height - 2.5, 16, 3, paints.lit(rgb("#4a4f5a"))))
    shapes.append(rectangle(-4.5, -height - 10, 9, 8, paints.lamp))
    cap = [(-6.5, -height - 9.5), (6.5, -height - 9.5), (0, -height - 16)]
    shapes.append(polygon(cap, paints.roof(0.85 * paints.main)))
    if paints.scene.time == "night":
        for side in (-1, 1):
            beam = [(side * 4, -height - 6), (side * 70, -height - 16), (side * 70, -height + 4)]
            shapes.append(polygon(beam, paints.lamp, 0.35))
    return shapes


def _house(paints: Paints, random: np.random.Generator) -> list[str]:
    half, wall, roof = random.uniform(17, 21), random.uniform(19, 23), random.uniform(14, 18)
    tile = paints.roof(paints.lit(_TILE))
    side = 1 if random.random() < 0.5 else -1
    chimney = rectangle(side * half * 0.55 - 2.5, -wall - roof * 0.95, 5, roof * 0.9, paints.lit(rgb("#7a5a50")))
    return [
        rectangle(-half, -wall, 2 * half, wall, paints.main),
        chimney,
        polygon([(-half - 4, -wall + 0.5), (half + 4, -wall + 0.5), (0, -wall - roof)], tile),
        rectangle(-3.8, -12.5, 7.6, 12.5, paints.lit(_WOOD)),
        *(rectangle(x - 3.4, -wall + 4.5, 6.8, 7, paints.window) for x in (-half * 0.62, half * 0.62)),
    ]


def _castle(paints: Paints, random: np.random.Generator) -> list[str]:
    stone = paints.lit(mix(_STONE, _GREY_STONE, random.uniform(0, 0.5)))
    tower, wall = random.uniform(33, 38), random.uniform(19, 23)
    shapes = [rectangle(-19, -wall, 38, wall, stone)]
    shapes += [rectangle(x, -wall - 3.6, 4, 4, stone) for x in (-10, -2, 6)]
    for x, height in ((-20, tower), (20, tower * random.uniform(0.9, 1.1))):
        shapes.append(rectangle(x - 6, -height, 12, height, 0.9 * stone))
        shapes.append(polygon([(x - 8, -height + 0.5), (x + 8, -height + 0.5), (x, -height - 14)], paints.main))
        if paints.snowy:
            shapes.append(polygon([(x - 4, -height - 7), (x + 4, -height - 7), (x, -height - 14)], paints.lit(SNOW)))
        shapes.append(rectangle(x - 2, -height + 6, 4, 7, paints.window))
    shapes.append(curve((-5, 0), [((-5, -14), (0, -14)), ((5, -14), (5, 0))], paints.lit(rgb("#4a3a30"))))
    return shapes


def _windmill(paints: Paints, random: np.random.Generator) -> list[str]:
    height = random.uniform(34, 38)
    shapes = [
        polygon([(-12, 0), (12, 0), (7.5, -height), (-7.5, -height)], paints.main),
        polygon([(-9, -height + 0.5), (9, -height + 0.5), (0, -height - 10)], paints.roof(paints.lit(_TILE))),
        rectangle(-3, -10, 6, 10, paints.lit(_WOOD)),
        rectangle(-2.6, -height * 0.6, 5.2, 6, paints.window),
    ]
    turn, sail = random.uniform(0, np.pi / 2), paints.lit(rgb("#efe9dc"))
    hub = np.array([0.0, -height + 1])
    for i in range(4):
        angle = turn + i * np.pi / 2
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        corners = [hub + a * along + b * across for a, b in ((5, -0.8), (25, -0.8), (25, 5.2), (5, 5.2))]
        shapes.append(polygon(corners, sail))
        shapes.append(line(hub, hub + 26 * along, paints.lit(_WOOD), 2))
    shapes.append(ellipse(0, hub[1], 2.4, 2.4, paints.lit(rgb("#4a3a30"))))
    return shapes


def _tree(paints: Paints, random: np.random.Generator) -> list[str]:
    height = random.uniform(15, 20)
    trunk = polygon([(-3.6, 0), (3.6, 0), (2.4, -height - 6), (-2.4, -height - 6)], paints.lit(_BARK))
    shapes = [trunk]
    for x, above, radius in ((0.0, 16, 16), (-11, 8, 11), (11, 8, 11), (-5, 24, 10), (6, 22, 10)):  # the crown
        x += random.normal(0, 1)
        shapes.append(ellipse(x, -height - above, radius * random.uniform(0.92, 1.08), radius * 0.95, paints.main))
    shapes.append(ellipse(-5, -height - 20, 7, 5, mix(paints.main, WHITE, 0.25)))
    if paints.snowy:
        shapes.append(ellipse(0, -height - 28, 11, 5, paints.lit(SNOW)))
    return shapes


def _boat(paints: Paints, random: np.random.Generator) -> list[str]:
    mast, way = random.uniform(42, 48), 1 if random.random() < 0.5 else -1
    hull = paints.lit(_WOOD)
    return [
        line((0, -8), (0, -mast), paints.lit(rgb("#5a4636")), 2.4),
        polygon([(way * 2, -11), (way * 22, -11), (way * 2, -mast + 2)], paints.main),
        polygon([(-way * 2, -11), (-way * 14, -11), (-way * 2, -mast + 8)], mix(paints.main, paints.lit(WHITE), 0.45)),
        polygon([(-23, -8), (23, -8), (16, 2), (-16, 2)], hull),
        polygon([(-23, -8), (23, -8), (21.4, -5.4), (-21.4, -5.4)], paints.roof(mix(hull, WHITE, 0.3))),
    ]


def _balloon(paints: Paints, random: np.random.Generator) -> list[str]:
    """Its foot is the bottom of the basket."""
    white = paints.scene.colour == "white"
    pale = paints.lit(rgb("#a9b4c4")) if white else mix(paints.main, paints.lit(WHITE), 0.6)
    centre, radius = -34.0, random.uniform(17.5, 19.5)
    basket = paints.lit(_WOOD)
    shapes = [line((side * 4, -6), (side * 11, centre + radius * 0.7), basket, 1.3) for side in (-1, 1)]
    cone = [(-radius * 0.86, centre + 9), (radius * 0.86, centre + 9), (4.5, -12), (-4.5, -12)]
    shapes.append(polygon(cone, paints.main))
    for width, colour in ((1.0, paints.main), (0.66, pale), (0.3, paints.main)):
        shapes.append(ellipse(0, centre, radius * width, radius, colour))
    shapes.append(rectangle(-4.6, -7, 9.2, 7, basket))
    return shapes


_SUBJECTS: dict[str, Callable[[Paints, np.random.Generator], list[str]]] = {
    subject.__name__.strip("_"): subject
    for subject in (_lighthouse, _house, _castle, _windmill, _tree, _boat, _balloon)
}
