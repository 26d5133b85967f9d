"""Scenes, captions and pictures by their number: the same number is always the same picture."""

from __future__ import annotations

import numpy as np

from .picture import draw
from .words import Scene, random_caption, random_scene

TRAINING = 20_000_000  # training pictures are this number and those after it; what lies below is held out


def scene(number: int) -> Scene:
    """What picture `number` shows, without drawing it."""
    return random_scene(np.random.default_rng(number))


def caption(number: int) -> str:
    """Its caption, without drawing it."""
    random = np.random.default_rng(number)
    return random_caption(random_scene(random), random)


def picture(number: int) -> tuple[np.ndarray, str]:
    """Picture [128, 128, 3] uint8 and caption of that number."""
    random = np.random.default_rng(number)
    scene = random_scene(random)
    caption = random_caption(scene, random)
    return np.asarray(draw(scene, random)), caption
