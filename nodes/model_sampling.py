"""Model Sampling PeRFlow: for checkpoints with the delta already in their weights."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..perflow_core.training.base import FlowBase
from .comfyui import node_text, shared_inputs
from .comfyui.sampling.base_sampling import base_of, other_prediction_lines
from .comfyui.sampling.flow_windows import flow_lines, given_edges
from .comfyui.sampling.perflow_model import trained_prediction, with_flow_windows, with_perflow_sampling
from .comfyui.weights.unet_weights import layout_of


class PeRFlowModelSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowModelSampling",
            display_name="Model Sampling PeRFlow",
            category="PeRFlow",
            description="Sets PeRFlow's sampling on a merged checkpoint, which already contains PeRFlow's weights.",
            search_aliases=["few step", "4 steps", "four steps", "accelerate", "merged checkpoint", "rectified flow"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD1.5, SD2.x, SDXL or flow-matching model with PeRFlow weights. LoRAs may come before "
                    "or after this node.",
                ),
                shared_inputs.prediction_type(auto=shared_inputs.PUBLISHED),
                shared_inputs.windows(" that the weights were trained with; 4 for all published weights."),
                shared_inputs.align_steps(),
                shared_inputs.edges(),
            ],
            outputs=[io.Model.Output()],
            **node_text.shows_text(),
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        prediction_type: shared_inputs.PredictionChoice,
        windows: int,
        align_steps: bool,
        edges: str = "",
    ) -> io.NodeOutput:
        shared_inputs.check_ranges(cls, prediction_type=prediction_type, windows=windows)
        base = base_of(model)  # first, for its error about models of another kind
        given = given_edges(base, edges)
        if isinstance(base, FlowBase):
            levels = given or base.edges(windows)
            accelerated = with_flow_windows(model, base, levels, align_steps)
            lines = flow_lines(levels, prediction_type != shared_inputs.AUTO, windows)
        else:
            remarks = []
            if prediction_type == shared_inputs.AUTO:
                prediction_type = trained_prediction(model, layout_of(model))
                remarks = other_prediction_lines(base, prediction_type)
            accelerated = with_perflow_sampling(model, base, prediction_type, windows, align_steps)
            lines = [f"{prediction_type}, {windows} windows", *remarks]
        text = "\n".join(lines)
        return io.NodeOutput(accelerated, ui=node_text.show_with_steps(cls, text, accelerated))
