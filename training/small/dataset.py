"""Drawn pictures with their captions, made once and kept in a folder."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from . import together
from .scenes.picture import draw
from .scenes.words import random_caption, random_scene

SEED = 20_000_000  # pictures of training are SEED, SEED + 1, ...; held-out ones lie below


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
        with ProcessPoolExecutor() as pool:
            drawn = list(pool.map(picture, range(SEED, SEED + count), chunksize=64))
        np.save(pixels, np.stack([pixel for pixel, _ in drawn]))
        words.write_text(json.dumps([caption for _, caption in drawn]), encoding="utf-8")
    together.wait()
    return np.load(pixels, mmap_mode="r"), json.loads(words.read_text(encoding="utf-8"))
