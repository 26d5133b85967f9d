"""Scenes as pixels, and scenes, captions and pictures by their number: the same number is always the same picture."""

from __future__ import annotations

import io

import numpy as np
import resvg_py
from PIL import Image

from . import sky
from .light import sky_of
from .places import ground
from .styles import styled
from .subjects import subject
from .svg import gradient
from .words import Scene, random_caption, random_scene

SIZE = 128
TRAINING = 20_000_000  # training pictures are this number and those after it; what lies below is held out


def draw(scene: Scene, random: np.random.Generator, size: int = SIZE) -> Image.Image:
    """The scene as an RGB picture, anti-aliased; everything that the words leave open comes from `random`."""
    png = resvg_py.svg_to_bytes(svg_string=svg(scene, random, size), skip_system_fonts=True)
    return Image.open(io.BytesIO(png)).convert("RGB")


def svg(scene: Scene, random: np.random.Generator, size: int = SIZE) -> str:
    """The scene as SVG, from back to front."""
    land = ground(scene, random)
    shapes = [
        f"<defs>{gradient('sky', sky_of(scene.time, scene.weather, random))}</defs>",
        '<rect width="128" height="96" fill="url(#sky)"/>',
        *sky.disc(scene, 88, random),
        *sky.clouds(scene, random),
        *land.shapes,
        subject(scene, land.foot, random),
        *sky.falling(scene, random),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128" width="{size}" height="{size}">'
        f"{''.join(shapes)}</svg>"
    )


def scene(number: int) -> Scene:
    """What picture `number` shows, without drawing it."""
    return random_scene(np.random.default_rng(number))


def caption(number: int) -> str:
    """Its caption, without drawing it."""
    random = np.random.default_rng(number)
    return random_caption(random_scene(random), random)


def picture(number: int, style: str | None = None) -> tuple[np.ndarray, str]:
    """Picture [128, 128, 3] uint8, in that style, and caption of that number."""
    random = np.random.default_rng(number)
    scene = random_scene(random)
    caption = random_caption(scene, random)
    pixels = np.asarray(draw(scene, random))
    return (styled(pixels, style) if style else pixels), caption
