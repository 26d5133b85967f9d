"""What a picture can show, and how a caption says it: a small grammar."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np

SUBJECTS = ("lighthouse", "house", "castle", "windmill", "tree", "boat", "balloon")
PLACES = ("cliff", "hill", "beach", "field", "mountains", "sea")
TIMES = ("dawn", "noon", "sunset", "night")
WEATHERS = ("clear", "cloudy", "rainy", "snowy")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white")
SIZES = ("small", "medium", "large")
SIDES = ("left", "middle", "right")

_WHERE = MappingProxyType(
    {
        "cliff": "on a cliff",
        "hill": "on a hill",
        "beach": "on a beach",
        "field": "in a field",
        "mountains": "in the mountains",
        "sea": "in the sea",
    }
)
_WHEN = MappingProxyType({"dawn": "at dawn", "noon": "at noon", "sunset": "at sunset", "night": "at night"})


@dataclass(frozen=True)
class Scene:
    """One picture's contents; every field is one of the words above."""

    subject: str
    place: str
    time: str
    weather: str
    colour: str
    size: str
    side: str


ATTRIBUTES = MappingProxyType(
    dict(
        zip(
            (field.name for field in fields(Scene)),
            (SUBJECTS, PLACES, TIMES, WEATHERS, COLOURS, SIZES, SIDES),
            strict=True,
        )
    )
)


def random_scene(random: np.random.Generator) -> Scene:
    """A scene with every word equally likely, except that a boat is always at the sea or on a beach."""
    words = {name: str(random.choice(choices)) for name, choices in ATTRIBUTES.items()}
    if words["subject"] == "boat":
        words["place"] = "beach" if random.random() < 0.25 else "sea"
    return Scene(**words)


def full_caption(scene: Scene) -> str:
    """The caption that says every attribute: "a small red house on a hill at dawn, snowy, on the left"."""
    return _caption(scene, says=lambda _: True)


def random_caption(scene: Scene, random: np.random.Generator, silence: float = 0.25) -> str:
    """A caption that leaves out each of colour, size, weather and side with probability `silence`."""
    left_out = {name for name in ("colour", "size", "weather", "side") if random.random() < silence}
    return _caption(scene, says=lambda name: name not in left_out)


def named_attributes(caption: str) -> dict[str, str]:
    """The attributes that a caption names: {"subject": "house", "time": "dawn", ...}. No word is in two of them."""
    words = set(re.findall("[a-z]+", caption))
    return {name: word for name, choices in ATTRIBUTES.items() for word in words.intersection(choices)}


def _caption(scene: Scene, says: Callable[[str], bool]) -> str:
    where = _WHERE[scene.place]
    if scene.subject == "balloon":
        where = f"above {where.partition(' ')[2]}"  # "above a hill", where others are "on a hill"
    size = scene.size if says("size") and scene.size != "medium" else ""
    colour = scene.colour if says("colour") else ""
    thing = " ".join(word for word in (size, colour, scene.subject) if word)
    article = "an" if thing[0] in "aeiou" else "a"
    parts = [f"{article} {thing} {where} {_WHEN[scene.time]}"]
    if says("weather"):
        parts.append(scene.weather)
    if says("side"):
        parts.append("in the middle" if scene.side == "middle" else f"on the {scene.side}")
    return ", ".join(parts)
