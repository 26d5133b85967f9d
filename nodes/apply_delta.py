"""Apply PeRFlow Delta: dW from a file onto a MODEL, and the sampling that goes with it."""

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..perflow_core.errors import counted, tensors_named
from ..perflow_core.sampling.parameterization import usual_base
from ..perflow_core.weights.delta_file import (
    metadata_base_prediction,
    metadata_edges,
    metadata_prediction_type,
    metadata_windows,
)
from ..perflow_core.weights.delta_fit import DeltaFit
from ..perflow_core.weights.delta_settings import learned_guidance, settings_text
from ..perflow_core.weights.unet_layout import TRAINED_WINDOWS
from .comfyui import folders, node_text, shared_inputs
from .comfyui.advice import with_advice
from .comfyui.sampling.base_sampling import base_of, other_base_lines
from .comfyui.sampling.flow_windows import EDGES, FlowBase, edges_text, flow_lines, given_edges, same_edges
from .comfyui.sampling.perflow_model import trained_prediction, window_steps, with_flow_windows, with_perflow_sampling
from .comfyui.sampling.perflow_sampling import Base
from .comfyui.sampling.step_alignment import LEARNED_GUIDANCE
from .comfyui.weights.delta_patches import fitting_delta, patches

APPLIED = "perflow_deltas"  # the MODEL's note of what was applied to it: [(file, strength), ...]


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
        given = given_edges(base, edges)
        with with_advice():
            delta = fitting_delta(model, folders.delta_path(delta_name), partial, strength)
            if isinstance(base, FlowBase):
                accelerated, lines = on_flow(model, base, delta, prediction_type, windows, align_steps, given)
            else:
                accelerated, lines = on_stable_diffusion(model, base, delta, prediction_type, windows, align_steps)
        applied = [*(model.get_attachment(APPLIED) or []), (delta.file.name, strength)]
        accelerated.add_patches(patches(delta), strength)
        accelerated.set_attachments(APPLIED, applied)
        accelerated.set_attachments(LEARNED_GUIDANCE, learned_guidance(delta.file))
        own = window_steps(accelerated, cls.__name__).chord.windows.own
        settings = settings_text(delta.file, delta.unet.family, len(own))
        sampling, *remarks = lines
        text = "\n".join([settings, *applied_lines(delta, applied, sampling), *remarks])
        return io.NodeOutput(accelerated, ui=node_text.show_with_steps(cls, text, accelerated))


def on_stable_diffusion(
    model: ModelPatcher, base: Base, delta: DeltaFit, choice: shared_inputs.PredictionChoice, windows: int, align: bool
) -> tuple[ModelPatcher, list[str]]:
    """A clone that samples as the delta was trained, and how that is in words."""
    prediction_type = choice
    if prediction_type == shared_inputs.AUTO:
        prediction_type = metadata_prediction_type(delta.file) or trained_prediction(model, delta.unet)
    windows = windows or metadata_windows(delta.file) or TRAINED_WINDOWS
    remarks = other_base_lines(base, metadata_base_prediction(delta.file) or usual_base(prediction_type))
    accelerated = with_perflow_sampling(model, base, prediction_type, windows, align)
    return accelerated, [f"{prediction_type}, {windows} windows", *remarks]


def on_flow(
    model: ModelPatcher,
    base: FlowBase,
    delta: DeltaFit,
    choice: shared_inputs.PredictionChoice,
    windows: int,
    align: bool,
    given: list[float] | None,
) -> tuple[ModelPatcher, list[str]]:
    """The same for a flow model, where the file says which sigmas the windows have, if the node does not."""
    trained, before = metadata_edges(delta.file), model.get_attachment(EDGES)
    edges = given or trained
    if edges is None or (windows and not given and windows != len(edges) - 1):
        edges = base.edges(windows or metadata_windows(delta.file) or TRAINED_WINDOWS)
    lines = flow_lines(edges, choice != shared_inputs.AUTO, windows)
    for whose, others in (("The file was trained with", trained), ("The model before had", before)):
        if others and not same_edges(others, edges):
            lines.append(f"{whose} other windows, sigma {edges_text(others)}, which are not used.")
    return with_flow_windows(model, base, edges, align), lines


def applied_lines(delta: DeltaFit, applied: list[tuple[str, float]], sampling: str) -> list[str]:
    """What was applied, and in words what is out of the ordinary."""
    lines = [str(delta.file), sampling]
    if delta.file.kind == "low-rank difference" and not delta.file.metadata.get("prediction_type"):
        lines.append("The file does not say that it is a PeRFlow delta. For a LoRA of another kind use Load LoRA.")
    if delta.left_out:
        fitting = len(delta.changes)
        lines.append(f"Applied: {fitting} of {counted(fitting + len(delta.left_out), 'tensor')}.")
        lines.append(f"Left out, being of another shape: {tensors_named(delta.left_out)}.")
    if delta.without:
        lines.append(f"Left as they are, with nothing for them in the file: {tensors_named(delta.without)}.")
    if len(applied) > 1:
        total = sum(strength for _, strength in applied)
        each = " + ".join(f"{name} {strength:g}" for name, strength in applied)
        lines.append(f"{len(applied)} deltas add up: {each}, strength {total:g} in all.")
    return lines
