"""A sheet of pictures that ComfyUI samples: rows of prompts, columns of ways to sample them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from trial.picture_graph import Link, PictureGraph
from trial.server import ComfyServer

from perflow_core.drawing.picture_sheet import SENTENCES, draw_sheet

Pictures = list[list[Image.Image]]  # rows of a sheet, all of one size


class Sheet(NamedTuple):
    """`to`: the column that the others' differences are measured to; None where there is nothing to compare."""

    title: str
    words: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Link]]  # what stands over a row, and its pictures
    to: int | None = 0

    def sampled(
        self, server: ComfyServer, graph: PictureGraph, on_event: Callable[[str, Any], None] = lambda kind, data: None
    ) -> Pictures:
        """All pictures, by the server; on_event as ComfyServer.run has it."""
        shown = [[graph.add("PreviewImage", images=picture)[0] for picture in row] for row in self.rows.values()]
        outputs = server.run(graph.nodes, on_event)["outputs"]
        images = [[server.image(**outputs[node]["images"][0]) for node in row] for row in shown]
        return [[Image.open(io.BytesIO(image)).convert("RGB") for image in row] for row in images]

    def drawn(self, pictures: Pictures, times: int) -> Image.Image:
        """The pictures, enlarged so many times, with what stands over rows and columns."""
        width, height = (times * side for side in pictures[0][0].size)
        enlarged = [[picture.resize((width, height), Image.Resampling.LANCZOS) for picture in row] for row in pictures]
        return draw_sheet(enlarged, self.columns, list(self.rows), SENTENCES)

    def differences(self, pictures: Pictures) -> str:
        """How far each other column is from the one to compare with, where there is one."""
        if self.to is None:
            return ""
        away = zip(self.columns, differences(pictures, self.to), strict=True)
        return "; ".join(f"{column}: {apart:.1f}" for column, apart in away if column != self.columns[self.to])


def differences(pictures: Pictures, to: int) -> list[float]:
    """Of every column to that one: root mean square, in levels of 0 to 255."""
    levels = np.array([[np.asarray(picture, float) for picture in row] for row in pictures])
    return [float(x) for x in np.sqrt(np.square(levels - levels[:, to : to + 1]).mean((0, 2, 3, 4)))]
