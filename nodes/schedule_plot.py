"""Plot Window Schedule: where the steps stand, as a picture."""

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui

from ..perflow_core.drawing.picture_sheet import to_tensor
from ..perflow_core.drawing.plots import draw_schedule
from .comfyui.sampling.perflow_model import window_steps
from .comfyui.sampling.perflow_sampling import PeRFlowSampling


class PeRFlowSchedulePlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowSchedulePlot",
            display_name="Plot Window Schedule",
            category="PeRFlow",
            description="Draws the windows, PeRFlow's path next to the base model's, and the place of each step.",
            search_aliases=["plot sigmas", "plot schedule", "visualize schedule"],
            inputs=[
                io.Model.Input("model", tooltip="A model from Apply PeRFlow Delta or Model Sampling PeRFlow."),
                io.Sigmas.Input(
                    "sigmas", tooltip="The sigmas of Window Schedule, or of any other scheduler to compare."
                ),
            ],
            outputs=[io.Image.Output()],
            is_output_node=True,  # it is drawn also when nothing is connected to it
        )

    @classmethod
    def execute(cls, model: ModelPatcher, sigmas: torch.Tensor) -> io.NodeOutput:
        if not torch.isfinite(sigmas).all():
            raise ValueError(
                "sigmas holds NaN or Inf, expected noise levels: connect Window Schedule or another scheduler, with "
                "settings that give steps."
            )
        steps = window_steps(model, "Plot Window Schedule")
        base = steps.base.alphas_cumprod if isinstance(steps, PeRFlowSampling) else None
        image = to_tensor(draw_schedule(steps.chord, base, sigmas))
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))
