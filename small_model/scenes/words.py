"""What a picture can show, and how a caption says it: a small grammar."""

from __future__ import annotations

import re
from collections.abc import Collection
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

_WHERE = dict(zip(PLACES, ("on a", "on a", "on a", "in a", "in the", "in the"), strict=True))


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


_WORDS = (SUBJECTS, PLACES, TIMES, WEATHERS, COLOURS, SIZES, SIDES)
ATTRIBUTES = MappingProxyType(dict(zip((field.name for field in fields(Scene)), _WORDS, strict=True)))


def random_scene(random: np.random.Generator) -> Scene:
    """A scene with every word equally likely, except that a boat is always at the sea or on a beach."""
    words = {name: str(random.choice(choices)) for name, choices in ATTRIBUTES.items()}
    if words["subject"] == "boat":
        words["place"] = "beach" if random.random() < 0.25 else "sea"
    return Scene(**words)


def caption_of(scene: Scene, left_out: Collection[str] = ()) -> str:
    """What says every attribute but those left out: "a small red house on a hill at dawn, snowy, on the left"."""
    size = "" if "size" in left_out or scene.size == "medium" else scene.size
    colour = "" if "colour" in left_out else scene.colour
    thing = " ".join(word for word in (size, colour, scene.subject) if word)
    article = "an" if thing[0] in "aeiou" else "a"
    where = _WHERE[scene.place]
    if scene.subject == "balloon":
        where = f"above {where.split()[1]}"  # "above a hill", where others are "on a hill"
    parts = [f"{article} {thing} {where} {scene.place} at {scene.time}"]
    if "weather" not in left_out:
        parts.append(scene.weather)
    if "side" not in left_out:
        parts.append("in the middle" if scene.side == "middle" else f"on the {scene.side}")
    return ", ".join(parts)


def random_caption(scene: Scene, random: np.random.Generator) -> str:
    """A caption that leaves out each of colour, size, weather and side in a quarter of all captions."""
    left_out = {name for name in ("colour", "size", "weather", "side") if random.random() < 0.25}
    return caption_of(scene, left_out)


def named_attributes(caption: str) -> dict[str, str]:
    """The attributes that a caption names: {"subject": "house", "time": "dawn", ...}. No word is in two of them."""
    words = set(re.findall("[a-z]+", caption))
    return {name: word for name, choices in ATTRIBUTES.items() for word in words.intersection(choices)}
