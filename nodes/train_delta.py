"""Train PeRFlow Delta: a low-rank delta for a MODEL, from pictures and their prompts."""

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from PIL.Image import Image

from ..perflow_core.drawing.picture_sheet import to_tensor
from ..perflow_core.drawing.plots import draw_losses
from ..perflow_core.errors import counted
from ..perflow_core.sampling.parameterization import PredictionType, like_base
from ..perflow_core.training import starting_delta
from ..perflow_core.training.base import Base, FlowBase
from ..perflow_core.training.descent import WindowLosses
from ..perflow_core.weights.delta_file import metadata_windows
from .comfyui import folders, node_text, shared_inputs
from .comfyui.advice import with_advice
from .comfyui.applied_delta import with_delta
from .comfyui.sampling.base_sampling import base_of
from .comfyui.sampling.flow_windows import EDGES, flow_lines, given_edges
from .comfyui.sampling.perflow_sampling import PeRFlowSampling
from .comfyui.training import trained_files
from .comfyui.training.delta_training import DeltaTraining, Settings
from .comfyui.training.examples import Examples
from .comfyui.training.session import train
from .comfyui.training.starting_delta import read_start
from .comfyui.training.trained_files import EarlierDelta
from .comfyui.weights.unet_weights import layout_of, source_name

NOTHING = "none"


class PeRFlowTrainDelta(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowTrainDelta",
            display_name="Train PeRFlow Delta",
            category="PeRFlow",
            description="Trains a PeRFlow of your own model: a low-rank delta that makes it a four-step one. The model "
            "itself is the teacher. Pictures and prompts come from the dataset nodes of Train LoRA, or from any other "
            "nodes.",
            search_aliases=["distill", "train lora", "reflow", "make delta"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The SD1.5, SD2.x, SDXL or flow-matching model to make fast. LoRAs on it are included.",
                ),
                io.Latent.Input(
                    "latents",
                    tooltip="The encoded pictures to learn from: a batch, or a list from Make Training Dataset. "
                    "Sizes may differ. In place of an empty latent, the model draws a picture of the prompt itself.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="The prompts of the pictures: one for all pictures or one for each."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The empty prompt. It replaces one in ten prompts, so that CFG keeps working. Needed for "
                    "guidance above 0.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=1000000,
                    tooltip="Number of training steps in this run. If you interrupt it, the node saves what was "
                    "trained.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Pictures per training step. More pictures need more memory.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=1e-7,
                    max=1.0,
                    step=1e-7,
                    tooltip="How far a training step goes. PeRFlow's authors used 0.0001 for SDXL; too much gives NaN "
                    "or noise.",
                ),
                io.Int.Input(
                    "rank",
                    default=64,
                    min=1,
                    max=1024,
                    tooltip="LoRA rank of each layer. A higher rank makes a larger file.",
                ),
                shared_inputs.windows(". A good picture needs at least this many steps; 4 in all published weights."),
                shared_inputs.prediction_type(
                    auto="as the file in resume_from or start_from, otherwise ddim_eps for a model that predicts "
                    "noise, velocity for one that predicts v"
                ),
                io.Int.Input(
                    "solving_steps",
                    default=8,
                    min=1,
                    max=100,
                    tooltip="Steps of the teacher in each window (second order). More steps are more exact and slower.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="0: train without guidance; sample with the same CFG as before (cfg_sync, as PeRFlow's "
                    "SD1.5). Otherwise the teacher's CFG, e.g. 7.5, is trained into the delta; sample with CFG 1 to "
                    "2.5 (as PeRFlow's SDXL).",
                ),
                io.Int.Input(
                    "points_per_window",
                    default=4,
                    min=1,
                    max=250,
                    tooltip="Number of timesteps that are trained in each window. The start of the window is trained "
                    "most, because sampling in 4 steps uses nothing else. With 4 points, 4, 8 and 16 steps work well.",
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=True,
                    tooltip="Training needs much less memory and more time.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="For the noise, the order of the pictures and the start of the adapters. The same seed "
                    "gives the same training.",
                ),
                shared_inputs.filename_prefix("trained"),
                io.Combo.Input(
                    "resume_from",
                    options=[NOTHING, *folders.delta_names()],
                    default=NOTHING,
                    optional=True,
                    tooltip="A delta that this node wrote, to continue from. Its rank is used; windows, edges and "
                    "prediction type must be the same. The node writes a new file.",
                ),
                shared_inputs.edges(),
                io.Boolean.Input(
                    "offloading",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Keep the model in the computer's memory and bring each layer to the GPU when it is "
                    "needed. For models that do not fit; it is slower.",
                ),
                io.Float.Input(
                    "guidance_up_to",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    advanced=True,
                    tooltip="For models that take guidance as an input, as Flux does: each picture is trained with a "
                    "guidance between that of its prompt (node FluxGuidance) and this one, so that the delta works "
                    "with all of them. 0: with that of its prompt.",
                ),
                io.Combo.Input(
                    "start_from",
                    options=[NOTHING, *folders.delta_names()],
                    default=NOTHING,
                    optional=True,
                    tooltip="A delta of this kind of model to begin with, such as that of the model that yours was "
                    "fine-tuned from. Any file that Apply PeRFlow Delta takes; windows, edges and prediction type "
                    "must be the same.",
                ),
            ],
            outputs=[
                io.String.Output("path"),
                io.LossMap.Output("loss_map", tooltip="The loss of each step, for Plot Loss Graph."),
                io.Image.Output("loss_by_window", tooltip="A picture of the loss of each window over the steps."),
                io.Model.Output(
                    "accelerated", tooltip="The model with the trained delta, as Apply PeRFlow Delta gives it."
                ),
            ],
            **node_text.shows_text(),
        )

    @classmethod
    def fingerprint_inputs(
        cls, resume_from: list[str] | None = None, start_from: list[str] | None = None, **_: object
    ) -> object:
        """The files', so that one replaced under the same name is read again."""
        return [folders.fingerprint(name) for name in [*(resume_from or []), *(start_from or [])]]

    @classmethod
    def execute(
        cls,
        model: list[ModelPatcher],
        latents: list[dict[str, Any]],
        positive: list[list[Any]],
        filename_prefix: list[str],
        negative: list[list[Any]] | None = None,
        *,
        resume_from: list[str] | None = None,
        start_from: list[str] | None = None,
        **widgets: list[Any],
    ) -> io.NodeOutput:
        """widgets: the numbers and choices of `Settings`, and steps, each in a list of one."""
        values = {name: value for name, (value, *_) in widgets.items()}
        shared_inputs.check_ranges(cls, **values)
        steps, rank = values.pop("steps"), values["rank"]
        base = teacher_of(model[0])
        values["edges"] = given_edges(base, values.get("edges", ""))
        earlier = earlier_delta(model[0], resume_from, start_from)
        if earlier:
            values |= earlier.settings(values["edges"])
        chosen = values["prediction_type"] != shared_inputs.AUTO
        values["prediction_type"] = chosen_prediction(base, values["prediction_type"], earlier)
        settings = Settings(**values)
        check_settings(settings, earlier, with_negative=bool(negative))
        with torch.inference_mode(False):
            examples = Examples(model[0], latents, positive, negative, settings.guidance_up_to)
            training = DeltaTraining(model[0], examples, settings)
            check_pictures(training)
            reported = [pictures_text(training)]
            if isinstance(base, FlowBase):
                reported += flow_lines(training.chord.own_edges, chosen, settings.windows)
            if earlier:
                check_edges(training, earlier)
                reported += earlier.begin(training, rank)
        trained_files.check_free_space(training)
        facts = {
            "architecture": layout_of(model[0]).family,
            "source": f"Train PeRFlow Delta on {source_name(model[0])}",
            **(earlier.facts if earlier else {}),
        }
        path, text, history = train(cls, training, earlier.steps if earlier else 0, steps, filename_prefix[0], facts)
        text = "\n".join([text, *reported])
        loss_map = {"loss": [losses.mean for losses in history]}
        accelerated, _ = with_delta(model[0], base, str(path))
        image = to_tensor(losses_by_window(training, history))
        return io.NodeOutput(str(path), loss_map, image, accelerated, ui=node_text.show(cls, text))


def teacher_of(model: ModelPatcher) -> Base | FlowBase:
    """Raises ValueError for a model that cannot be a teacher."""
    base = base_of(model)
    if isinstance(model.get_model_object("model_sampling"), PeRFlowSampling) or model.get_attachment(EDGES):
        raise ValueError(
            "This model has PeRFlow's sampling already, expected the base model, which is the teacher: connect the "
            "model from before Apply PeRFlow Delta; to continue training a delta, choose it in resume_from, and to "
            "begin with one, in start_from."
        )
    return base


@with_advice()
def earlier_delta(
    model: ModelPatcher, resume_from: list[str] | None, start_from: list[str] | None
) -> EarlierDelta | None:
    """Raises UnusableError for a file that cannot be begun with, and ValueError for two of them."""
    names = [given[0] if given and given[0] != NOTHING else None for given in (resume_from, start_from)]
    resumed, started = (folders.delta_path(name) if name else None for name in names)
    if resumed and started:
        raise ValueError(
            f"resume_from is {names[0]} and start_from is {names[1]}, expected one of them: a delta that is resumed "
            "has what it began with in it, so set start_from to none."
        )
    if resumed:
        return trained_files.read_resumed(resumed)
    return read_start(model, started) if started else None


@with_advice()
def chosen_prediction(
    base: Base | FlowBase, choice: shared_inputs.PredictionChoice, earlier: EarlierDelta | None
) -> PredictionType:
    if isinstance(base, FlowBase):
        return like_base(base.predicts)
    if choice != shared_inputs.AUTO:
        return choice
    return (earlier.prediction_type if earlier else None) or like_base(base.predicts)


@with_advice()
def check_settings(settings: Settings, earlier: EarlierDelta | None, with_negative: bool) -> None:
    """Raises ValueError for settings that exclude one another."""
    if settings.guidance not in (0, 1) and not with_negative:
        raise ValueError(
            f"guidance is {settings.guidance:g} and negative is not connected, expected the empty prompt there: "
            "connect it as negative, or set guidance to 0."
        )
    if earlier is None:
        return
    windows = None if settings.edges else metadata_windows(earlier.file)
    trained = {"windows": windows, "prediction_type": earlier.prediction_type}
    chosen = {name: getattr(settings, name) for name in trained}
    starting_delta.check_same(earlier.file, trained, chosen, "the node says", anew(earlier))


@with_advice()
def check_edges(training: DeltaTraining, earlier: EarlierDelta) -> None:
    """Raises UnusableError for a flow model's delta whose windows are elsewhere."""
    starting_delta.check_edges(earlier.file, training.chord.own_edges, "the node has", anew(earlier))


def anew(earlier: EarlierDelta) -> str:
    return f"start anew with {earlier.chosen_in} none"


def check_pictures(training: DeltaTraining) -> None:
    """Raises ValueError where the model would have to draw the pictures, and has a part of the path only."""
    missing = training.examples.missing
    if missing and training.is_part:
        raise ValueError(
            f"Latent {missing[0] + 1} is empty, and a model for the sigmas {training.chord.own_edges[0]:.4g} to "
            f"{training.chord.own_edges[-1]:.4g} cannot draw a whole picture, expected pictures: connect VAE Encode "
            "in place of the empty latent."
        )


def pictures_text(training: DeltaTraining) -> str:
    """How many there are, and who drew them."""
    text = counted(len(training.examples.latents), "picture")
    if drawn := len(training.examples.missing):
        text += f", {drawn} of them drawn by the model itself at CFG {training.drawing_guidance:g}"
    return text


def losses_by_window(training: DeltaTraining, history: list[WindowLosses]) -> Image:
    own = training.chord.windows.own
    return draw_losses([{w - own.start: loss for w, loss in losses.by_window.items()} for losses in history], len(own))
