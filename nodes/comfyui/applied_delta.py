"""A delta on a MODEL: its weights, the sampling that goes with them, and what is to be said of both."""

from typing import NamedTuple

from comfy.model_patcher import ModelPatcher

from ...perflow_core.errors import counted, tensors_named
from ...perflow_core.sampling.parameterization import usual_base
from ...perflow_core.sampling.windows import edges_text, same_edges
from ...perflow_core.training.base import Base, FlowBase
from ...perflow_core.weights.delta_file import (
    metadata_base_prediction,
    metadata_edges,
    metadata_prediction_type,
    metadata_windows,
)
from ...perflow_core.weights.delta_fit import DeltaFit
from ...perflow_core.weights.delta_settings import learned_guidance, settings_text
from ...perflow_core.weights.unet_layout import TRAINED_WINDOWS
from . import shared_inputs
from .sampling.base_sampling import other_base_lines
from .sampling.flow_windows import EDGES, flow_lines
from .sampling.perflow_model import trained_prediction, window_steps, with_flow_windows, with_perflow_sampling
from .sampling.step_alignment import LEARNED_GUIDANCE
from .weights.delta_patches import fitting_delta, patches

APPLIED = "perflow_deltas"  # the MODEL's note of what was applied to it: [(file, strength), ...]


class Sampling(NamedTuple):
    """How the node wants the model to sample; without anything as the file says."""

    prediction_type: shared_inputs.PredictionChoice = shared_inputs.AUTO
    windows: int = 0
    align_steps: bool = True
    edges: list[float] | None = None  # of a flow model


AS_THE_FILE_SAYS = Sampling()


def with_delta(
    model: ModelPatcher,
    base: Base | FlowBase,
    path: str,
    sampling: Sampling = AS_THE_FILE_SAYS,
    strength: float = 1.0,
    partial: bool = False,
) -> tuple[ModelPatcher, list[str]]:
    """A clone of a MODEL whose base is known, and what is to be said of it, a line each.

    Raises UnusableError for a file that does not fit.
    """
    delta = fitting_delta(model, path, partial, strength)
    if isinstance(base, FlowBase):
        accelerated, (sampled, *remarks) = on_flow(model, base, delta, sampling)
    else:
        accelerated, (sampled, *remarks) = on_stable_diffusion(model, base, delta, sampling)
    applied = [*(model.get_attachment(APPLIED) or []), (delta.file.name, strength)]
    accelerated.add_patches(patches(delta), strength)
    accelerated.set_attachments(APPLIED, applied)
    accelerated.set_attachments(LEARNED_GUIDANCE, learned_guidance(delta.file))
    windows = len(window_steps(accelerated, "Apply PeRFlow Delta").chord.windows.own)
    settings = settings_text(delta.file, delta.unet.family, windows)
    return accelerated, [settings, *applied_lines(delta, applied, sampled), *remarks]


def on_stable_diffusion(
    model: ModelPatcher, base: Base, delta: DeltaFit, sampling: Sampling
) -> tuple[ModelPatcher, list[str]]:
    """A clone that samples as the delta was trained, and how that is in words."""
    prediction_type = sampling.prediction_type
    if prediction_type == shared_inputs.AUTO:
        prediction_type = metadata_prediction_type(delta.file) or trained_prediction(model, delta.unet)
    windows = sampling.windows or metadata_windows(delta.file) or TRAINED_WINDOWS
    remarks = other_base_lines(base, metadata_base_prediction(delta.file) or usual_base(prediction_type))
    accelerated = with_perflow_sampling(model, base, prediction_type, windows, sampling.align_steps)
    return accelerated, [f"{prediction_type}, {windows} windows", *remarks]


def on_flow(model: ModelPatcher, base: FlowBase, delta: DeltaFit, sampling: Sampling) -> tuple[ModelPatcher, list[str]]:
    """The same for a flow model, where the file says which sigmas the windows have, if the node does not."""
    trained, before, windows = metadata_edges(delta.file), model.get_attachment(EDGES), sampling.windows
    edges = sampling.edges or trained
    if edges is None or (windows and not sampling.edges and windows != len(edges) - 1):
        edges = base.edges(windows or metadata_windows(delta.file) or TRAINED_WINDOWS)
    lines = flow_lines(edges, sampling.prediction_type != shared_inputs.AUTO, windows)
    for whose, others in (("The file was trained with", trained), ("The model before had", before)):
        if others and not same_edges(others, edges):
            lines.append(f"{whose} other windows, sigma {edges_text(others)}, which are not used.")
    return with_flow_windows(model, base, edges, sampling.align_steps), lines


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
