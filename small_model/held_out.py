"""Pictures that nothing is trained on: the ones below the training pictures' first number."""

from __future__ import annotations

import re

import numpy as np

from .dataset import SEED
from .scenes.words import ATTRIBUTES, Scene, random_caption, random_scene

HELD_OUT = range(SEED)
_WORDS = re.compile("[a-z]+")


def scene(number: int) -> Scene:
    """What picture `number` shows, without drawing it."""
    return random_scene(np.random.default_rng(number))


def caption(number: int) -> str:
    """Its caption, without drawing it."""
    random = np.random.default_rng(number)
    return random_caption(random_scene(random), random)


def said(caption: str) -> dict[str, str]:
    """The attributes that a caption names: {"subject": "house", "time": "dawn", ...}. No word is in two of them."""
    words = set(_WORDS.findall(caption))
    found = {name: words & set(choices) for name, choices in ATTRIBUTES.items()}
    return {name: word for name, (word, *_) in ((name, tuple(words)) for name, words in found.items() if words)}
