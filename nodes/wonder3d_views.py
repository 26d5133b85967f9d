"""Wonder3D Views: the twelve pictures taken apart."""

import torch
from comfy_api.latest import io
from torch import Tensor

from ..perflow_core.drawing.picture_sheet import draw_views
from ..perflow_core.views.twelve_views import VIEWS, domains
from .comfyui.advice import with_advice


class Wonder3DViews(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wonder3DViews",
            display_name="Wonder3D Views",
            category="PeRFlow",
            description="Takes the 12 pictures that Wonder3D draws apart: six views as colours, the same as normals, "
            f"both in the order {', '.join(VIEWS)}; and a sheet of all with their names.",
            search_aliases=["wonder3d", "multi-view", "multiview", "image to 3d", "novel view", "normal map", "sheet"],
            inputs=[
                io.Image.Input("images", tooltip="What VAE Decode makes of the sampled latent: 12 pictures an object.")
            ],
            outputs=[
                io.Image.Output(display_name="colours"),
                io.Image.Output(display_name="normals"),
                io.Image.Output(display_name="sheet"),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor) -> io.NodeOutput:
        with with_advice():
            normals, colours = domains(images)
        objects = range(0, len(normals), len(VIEWS))
        sheets = [draw_views(normals[i : i + len(VIEWS)], colours[i : i + len(VIEWS)]) for i in objects]
        return io.NodeOutput(colours, normals, torch.cat(sheets))
