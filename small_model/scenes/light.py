"""Colours, and what the time of day and the weather do to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Colour = np.ndarray  # red, green, blue, each 0 to 1


def hexed(colour: Colour) -> str:
    """As SVG writes it: "#rrggbb"."""
    return "#" + (255 * colour.clip(0, 1)).round().astype(np.uint8).tobytes().hex()


def rgb(text: str) -> Colour:
    """The colour of SVG's "#rrggbb"."""
    return np.frombuffer(bytes.fromhex(text[1:]), np.uint8) / 255


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b, the rest of a."""
    return (1 - share) * a + share * b


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

    sky: list[Colour]
    tint: Colour
    strength: float  # how far the tint replaces white light
    water: Colour
    disc: Colour


def _light(sky: str, tint: str, strength: float, water: str, disc: str) -> Light:
    return Light([rgb(colour) for colour in sky.split()], rgb(tint), strength, rgb(water), rgb(disc))


TIMES = {
    "dawn": _light("#8f8fd6 #e9b3d0 #fde3c4", "#e6c3dc", 0.6, "#9a9ed2", "#fff1cf"),
    "noon": _light("#3a8fe6 #7fc0f2 #d2edfa", "#ffffff", 0.0, "#2c7cc4", "#fff6b0"),
    "sunset": _light("#5a3577 #e0583f #ffc45c", "#f0a070", 0.6, "#8a4a6e", "#fff0a0"),
    "night": _light("#090f2e #15245a #2d477f", "#5b70b4", 0.9, "#13265a", "#f2f0dc"),
}
WHITE, SNOW, GREY = rgb("#ffffff"), rgb("#f3f7fc"), rgb("#8c939c")


def sky_of(time: str, weather: str, random: np.random.Generator) -> list[Colour]:
    """The three colours of the sky, greyed by rain and clouds, and a little different in every picture."""
    grey = {"clear": 0.0, "cloudy": 0.12, "rainy": 0.5, "snowy": 0.2}[weather]
    cover = (0.35 if time == "night" else 0.85) * GREY
    shift = random.normal(0, 0.02, 3)
    return [mix(colour, cover, grey) + shift for colour in TIMES[time].sky]


def lit(colour: Colour, time: str, random: np.random.Generator | None = None) -> Colour:
    """A surface's colour in the light of that time; `random` makes it a little different."""
    shade = mix(WHITE, TIMES[time].tint, TIMES[time].strength)
    noise = random.normal(0, 0.03, 3) if random is not None else 0.0
    return (colour * shade + noise).clip(0, 1)
