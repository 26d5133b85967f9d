"""A scene as pixels."""

from __future__ import annotations

import io

import numpy as np
import resvg_py
from PIL import Image

from . import sky
from .light import sky_of
from .places import ground
from .subjects import subject
from .svg import gradient
from .words import Scene

SIZE = 128


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
