"""Colours, and what the time of day and the weather do to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]  # red, green, blue, each 0 to 1


def hexed(colour: Colour) -> str:
    """As SVG writes it."""
    return "#" + "".join(f"{round(255 * min(max(part, 0.0), 1.0)):02x}" for part in colour)


def rgb(text: str) -> Colour:
    """The colour of SVG's "#rrggbb"."""
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b, the rest of a."""
    red, green, blue = ((1 - share) * x + share * y for x, y in zip(a, b, strict=True))
    return red, green, blue


PAINT = {  # what the words for colours look like
    "red": rgb("#d8342c"),
    "orange": rgb("#f08a24"),
    "yellow": rgb("#f6d23a"),
    "green": rgb("#3d9a4a"),
    "blue": rgb("#2f6fd0"),
    "purple": rgb("#8a4fbf"),
    "white": rgb("#f4f1ea"),
}


class Light(NamedTuple):
    """One time of day: the sky from top to horizon, the colour of the light and its strength, the sun or moon."""

    sky: tuple[Colour, Colour, Colour]
    tint: Colour
    strength: float  # how far the tint replaces white light
    water: Colour
    disc: Colour


TIMES = {
    "dawn": Light(
        (rgb("#8f8fd6"), rgb("#e9b3d0"), rgb("#fde3c4")), rgb("#e6c3dc"), 0.6, rgb("#9a9ed2"), rgb("#fff1cf")
    ),
    "noon": Light(
        (rgb("#3a8fe6"), rgb("#7fc0f2"), rgb("#d2edfa")), rgb("#ffffff"), 0.0, rgb("#2c7cc4"), rgb("#fff6b0")
    ),
    "sunset": Light(
        (rgb("#5a3577"), rgb("#e0583f"), rgb("#ffc45c")), rgb("#f0a070"), 0.6, rgb("#8a4a6e"), rgb("#fff0a0")
    ),
    "night": Light(
        (rgb("#090f2e"), rgb("#15245a"), rgb("#2d477f")), rgb("#5b70b4"), 0.9, rgb("#13265a"), rgb("#f2f0dc")
    ),
}
SNOW = rgb("#f3f7fc")
GREY = rgb("#8c939c")


def sky_of(time: str, weather: str, random: np.random.Generator) -> tuple[Colour, Colour, Colour]:
    """The three colours of the sky, greyed by rain and clouds, and a little different in every picture."""
    grey = {"clear": 0.0, "cloudy": 0.12, "rainy": 0.5, "snowy": 0.2}[weather]
    light = TIMES[time]
    cover = darker(GREY, 0.35 if time == "night" else 0.85)
    shift = random.normal(0, 0.02, 3)
    top, middle, horizon = (_moved(mix(colour, cover, grey), shift) for colour in light.sky)
    return top, middle, horizon


def lit(colour: Colour, time: str, random: np.random.Generator | None = None, spread: float = 0.03) -> Colour:
    """A surface's colour in the light of that time; `random` makes it a little different."""
    light = TIMES[time]
    shade = mix((1.0, 1.0, 1.0), light.tint, light.strength)
    noise = random.normal(0, spread, 3) if random is not None else np.zeros(3)
    red, green, blue = (part * tone for part, tone in zip(colour, shade, strict=True))
    red, green, blue = (min(max(part, 0.0), 1.0) for part in _moved((red, green, blue), noise))
    return red, green, blue


def darker(colour: Colour, factor: float = 0.72) -> Colour:
    red, green, blue = (part * factor for part in colour)
    return red, green, blue


def _moved(colour: Colour, by: np.ndarray) -> Colour:
    red, green, blue = (part + float(move) for part, move in zip(colour, by, strict=True))
    return red, green, blue
