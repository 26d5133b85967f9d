"""Apply PeRFlow Delta: dW from a file onto a MODEL, and the sampling that goes with it."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .comfyui import folders, node_text, shared_inputs
from .comfyui.advice import with_advice
from .comfyui.applied_delta import Sampling, with_delta
from .comfyui.sampling.base_sampling import base_of
from .comfyui.sampling.flow_windows import given_edges


class PeRFlowApplyDelta(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowApplyDelta",
            display_name="Apply PeRFlow Delta",
            category="PeRFlow",
            description="Makes a model a four-step one: it adds the PeRFlow weight difference and "
            "sets the matching sampling. LoRAs, ControlNet, IP-Adapter, CFG and negative prompts keep working.",
            search_aliases=["perflow", "few step", "4 steps", "four steps", "accelerate", "speed", "fast"]
            + ["lightning", "lcm", "turbo", "hyper", "rectified flow"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD1.5, SD2.x, SDXL or flow-matching model. LoRAs may come before or after this node.",
                ),
                io.Combo.Input(
                    "delta_name",
                    options=folders.delta_choices(),
                    tooltip="A .safetensors file in models/perflow that was made for the same kind of model.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much of the difference is added. 1 is as trained; 0 returns the model unchanged.",
                ),
                shared_inputs.prediction_type(auto=f"what the file says, otherwise {shared_inputs.PUBLISHED}"),
                shared_inputs.windows(
                    " that the weights were trained with. 0: what the file says, otherwise 4, which all published "
                    "weights use.",
                    default=0,
                ),
                shared_inputs.align_steps(),
                io.Boolean.Input(
                    "partial",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Apply what fits and leave out what does not, such as an inpainting model's input layer. "
                    "If off, the node refuses such a file.",
                ),
                shared_inputs.edges("what the file says, or windows"),
            ],
            outputs=[io.Model.Output()],
            **node_text.shows_text(),
        )

    @classmethod
    def fingerprint_inputs(cls, delta_name: str | None = None, **_: object) -> object:
        """The file's, so that one replaced under the same name is read again."""
        return folders.fingerprint(delta_name)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        delta_name: str,
        strength: float,
        prediction_type: shared_inputs.PredictionChoice,
        windows: int,
        align_steps: bool,
        partial: bool = False,
        edges: str = "",
    ) -> io.NodeOutput:
        shared_inputs.check_ranges(cls, strength=strength, prediction_type=prediction_type, windows=windows)
        if strength == 0:
            return io.NodeOutput(model, ui=node_text.show(cls, "Strength 0: the model is unchanged."))
        base = base_of(model)  # first: the error for a wrong model comes before that for a wrong file
        sampling = Sampling(prediction_type, windows, align_steps, given_edges(base, edges))
        with with_advice():
            accelerated, lines = with_delta(model, base, folders.delta_path(delta_name), sampling, strength, partial)
        return io.NodeOutput(accelerated, ui=node_text.show_with_steps(cls, "\n".join(lines), accelerated))
