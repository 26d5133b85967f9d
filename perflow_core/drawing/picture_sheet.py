"""A sheet of pictures in rows and columns with their names, and the sheet of Wonder3D's twelve."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..views.twelve_views import DOMAINS, VIEWS

PAPER, INK = "#ffffff", "#1f2430"


class Layout(NamedTuple):
    """Where names and pictures stand, in pixels; the names of columns are between `edge` and `top`."""

    edge: int
    top: int  # where the rows begin
    left: int  # where the columns begin
    above: int  # room for a row's name above its pictures; without it the name is at their left
    gap: int  # after a picture
    letters: int


SENTENCES = Layout(edge=12, top=46, left=12, above=34, gap=12, letters=22)  # rows have whole sentences
WORDS = Layout(edge=0, top=40, left=116, above=0, gap=8, letters=22)  # rows have short names


def draw_sheet(
    pictures: Sequence[Sequence[Image.Image]], columns: Sequence[str], rows: Sequence[str], layout: Layout
) -> Image.Image:
    """Rows of pictures, all of one size, under the columns' names, each row with its own name."""
    width, height = pictures[0][0].size
    across, down = width + layout.gap, layout.above + height + layout.gap
    size = (layout.left + across * len(columns), layout.top + down * len(rows))
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(layout.letters)
    for c, name in enumerate(columns):
        x = layout.left + c * across + width / 2
        pen.text((x, (layout.edge + layout.top) / 2), name, INK, font, "mm")
    for r, (row, name) in enumerate(zip(pictures, rows, strict=True)):
        y = layout.top + r * down
        if layout.above:
            pen.text((layout.left, y + layout.above / 2), name, INK, font, "lm")
        else:
            pen.text((layout.left / 2, y + height / 2), name, INK, font, "mm")
        for c, picture in enumerate(row):
            sheet.paste(picture, (layout.left + c * across, y + layout.above))
    return sheet


def draw_views(normals: Tensor, colours: Tensor) -> Tensor:
    """One object's six normals and six colours, [6, h, w, 3] each, in two named rows of six named columns.

    Returns [1, H, W, 3], values 0 to 1.
    """
    pictures = [[from_tensor(view) for view in views] for views in (normals, colours)]
    return to_tensor(draw_sheet(pictures, VIEWS, DOMAINS, WORDS))


def to_tensor(picture: Image.Image) -> Tensor:
    """[1, H, W, 3], float32, values 0 to 1: ComfyUI's IMAGE."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]


def from_tensor(pixels: Tensor) -> Image.Image:
    """The picture of values 0 to 1, [H, W, 3] or more channels, of which the first three count."""
    return Image.fromarray((pixels[..., :3].float().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy())
