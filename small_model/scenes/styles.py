"""Other drawing styles for the same scenes: what a fine-tuned model or a LoRA is taught. Pictures in, pictures out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

_PAPER, _INK = (242, 229, 203), (38, 28, 24)
_NIGHT = (10, 8, 34)


def woodcut(picture: Image.Image) -> Image.Image:
    """Few flat tones printed on warm paper, with ink along every edge."""
    flat = ImageOps.posterize(ImageEnhance.Color(picture).enhance(0.8), 2)
    printed = ImageChops.multiply(Image.blend(flat, picture, 0.35), Image.new("RGB", picture.size, _PAPER))
    printed = ImageEnhance.Brightness(printed).enhance(1.15)
    return Image.composite(Image.new("RGB", picture.size, _INK), printed, _edges(picture, 3.0))


def neon(picture: Image.Image) -> Image.Image:
    """The same at night: dark surfaces, and every edge a glowing tube in the colour beside it."""
    bright = ImageEnhance.Color(picture).enhance(2.2)
    tubes = ImageChops.multiply(bright, Image.merge("RGB", [_edges(picture, 4.0)] * 3))
    glow = ImageEnhance.Brightness(tubes.filter(ImageFilter.GaussianBlur(2.5))).enhance(1.6)
    dark = Image.blend(bright, Image.new("RGB", picture.size, _NIGHT), 0.62)
    return ImageChops.screen(ImageChops.screen(dark, glow), tubes)


def _edges(picture: Image.Image, gain: float) -> Image.Image:
    """How fast the picture changes across three pixels, in any colour: [H, W] of 0 to 255."""
    most, least = picture.filter(ImageFilter.MaxFilter(3)), picture.filter(ImageFilter.MinFilter(3))
    change = np.asarray(ImageChops.subtract(most, least)).max(axis=2).astype(np.float32)
    return Image.fromarray(np.clip(gain * (change - 24), 0, 255).astype(np.uint8))


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {"woodcut": woodcut, "neon": neon}


def styled(pixels: np.ndarray, style: str) -> np.ndarray:
    """A picture [H, W, 3] uint8 in that style."""
    return np.asarray(STYLES[style](Image.fromarray(pixels)))
