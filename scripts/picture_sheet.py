"""A sheet of pictures: rows with a label, columns with a title, and how far the columns are from one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Pictures = list[list[Image.Image]]  # rows of a sheet, all of one size
EDGE, LINE = 12, 34  # pixels: around pictures, and the height of a line of text


def drawn(pictures: Pictures, columns: Sequence[str], labels: Sequence[str], enlarged: int) -> Image.Image:
    """Titles above the columns, each row's label above its pictures."""
    width, height = (enlarged * side for side in pictures[0][0].size)
    across, down = width + EDGE, height + EDGE + LINE
    sheet = Image.new("RGB", (EDGE + across * len(columns), EDGE + LINE + down * len(pictures)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE * 2 // 3)
    for c, title in enumerate(columns):
        pen.text((EDGE + c * across + width / 2, EDGE + LINE / 2), title, "black", font, anchor="mm")
    for r, (row, label) in enumerate(zip(pictures, labels, strict=True)):
        top = EDGE + LINE + r * down
        pen.text((EDGE, top + LINE / 2), label, "dimgrey", font, anchor="lm")
        for c, picture in enumerate(row):
            sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (EDGE + c * across, top + LINE))
    return sheet


def differences(pictures: Pictures, to: int) -> list[float]:
    """Of every column to that one: root mean square, in levels of 0 to 255."""
    levels = np.array([[np.asarray(picture, float) for picture in row] for row in pictures])
    return [float(x) for x in np.sqrt(np.square(levels - levels[:, to : to + 1]).mean((0, 2, 3, 4)))]
