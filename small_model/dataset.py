"""Drawn pictures with their captions, made once and kept in a folder."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from . import together
from .scenes.picture import SIZE, draw
from .scenes.words import random_caption, random_scene

SEED = 20_000_000  # pictures of training are SEED, SEED + 1, ...; held-out ones lie below
PART = 256  # pictures that a process draws at once


def picture(seed: int) -> tuple[np.ndarray, str]:
    """Picture [128, 128, 3] uint8 and caption number `seed`."""
    random = np.random.default_rng(seed)
    scene = random_scene(random)
    caption = random_caption(scene, random)
    return np.asarray(draw(scene, random)), caption


def pictures_of(folder: Path, count: int) -> tuple[np.ndarray, list[str]]:
    """The first `count` pictures [count, 128, 128, 3] uint8 and their captions, drawn unless the folder has them."""
    pixels, words = folder / f"pictures-{count}.npy", folder / f"captions-{count}.json"
    if not words.exists() and together.NUMBER == 0:
        np.lib.format.open_memmap(pixels, "w+", np.uint8, (count, SIZE, SIZE, 3)).flush()
        parts = [range(first, min(first + PART, count)) for first in range(0, count, PART)]
        with ProcessPoolExecutor() as pool:
            captions = [caption for part in pool.map(_draw_part, [pixels] * len(parts), parts) for caption in part]
        words.write_text(json.dumps(captions), encoding="utf-8")
    together.wait()
    return np.load(pixels, mmap_mode="c"), json.loads(words.read_text(encoding="utf-8"))


def _draw_part(file: Path, part: range) -> list[str]:
    """Draw some of the pictures into the file; their captions."""
    pictures = np.load(file, mmap_mode="r+")
    captions = []
    for i in part:
        pictures[i], caption = picture(SEED + i)
        captions.append(caption)
    return captions
