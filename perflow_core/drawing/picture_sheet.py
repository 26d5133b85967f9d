"""The sheet of Wonder3D's twelve pictures, with the names of views and domains."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..views.twelve_views import DOMAINS, VIEWS

PAPER, INK = "#ffffff", "#1f2430"
LETTERS = 22
TOP, LEFT, GAP = 40, 116, 8  # room for the names, and between pictures; pixels


def draw_sheet(normals: Tensor, colours: Tensor) -> Tensor:
    """One object's six normals and six colours, [6, h, w, 3] each, in two named rows of six named columns.

    Returns [1, H, W, 3], values 0 to 1.
    """
    height, width = normals.shape[1:3]
    size = (LEFT + len(VIEWS) * (width + GAP), TOP + len(DOMAINS) * (height + GAP))
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    for column, view in enumerate(VIEWS):
        x = LEFT + column * (width + GAP)
        pen.text((x + width / 2, TOP / 2), view, INK, font, "mm")
        for row, pictures in enumerate((normals, colours)):
            sheet.paste(_picture(pictures[column]), (x, TOP + row * (height + GAP)))
    for row, domain in enumerate(DOMAINS):
        pen.text((LEFT / 2, TOP + row * (height + GAP) + height / 2), domain, INK, font, "mm")
    return torch.from_numpy(np.array(sheet)).to(torch.float32)[None] / 255


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels[..., :3].float().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy())
