"""Inputs that several nodes have in common."""

from typing import Any, Final, Literal

from comfy_api.latest import io

from ...perflow_core.errors import shown
from ...perflow_core.sampling.parameterization import PREDICTION_TYPES, PredictionType

AUTO: Final = "auto"
PredictionChoice = PredictionType | Literal["auto"]


PUBLISHED = "diff_eps for SD1.5, ddim_eps for SDXL, velocity for SD2.x"


def prediction_type(auto: str) -> io.Combo.Input:
    """auto: what "auto" chooses on this node, in words."""
    return io.Combo.Input(
        "prediction_type",
        options=[AUTO, *PREDICTION_TYPES],
        default=AUTO,
        tooltip=f"What the UNet's output means. auto: {auto}.",
    )


def filename_prefix(default: str) -> io.String.Input:
    return io.String.Input(
        "filename_prefix",
        default=default,
        tooltip="Name of the file in output/perflow; a subfolder may come before it.",
    )


def align_steps() -> io.Boolean.Input:
    return io.Boolean.Input(
        "align_steps",
        default=True,
        advanced=True,
        tooltip="Move the steps of any sampler and scheduler to the window grid, so that a plain KSampler takes the "
        "right steps. Turn off to sample exactly where the scheduler says.",
    )


def check_ranges(node: type[io.ComfyNode], **values: Any) -> None:
    """Raises ValueError for what a node's widgets would not take; through links it comes unchecked."""
    for wanted in node.define_schema().inputs:  # not GET_SCHEMA, which writes to a class that is locked when it runs
        if wanted.id not in values:
            continue
        value = values[wanted.id]
        if isinstance(wanted, io.Int.Input | io.Float.Input) and not wanted.min <= value <= wanted.max:  # nor is NaN
            expected = f"{wanted.min:g} to {wanted.max:g}"
        elif isinstance(wanted, io.Combo.Input) and value not in wanted.options:
            expected = f"one of {', '.join(wanted.options)}"
        else:
            continue
        raise ValueError(
            f"{wanted.id} is {shown(str(value), 40)}, expected {expected}: change what is connected to {wanted.id}."
        )
