"""Inputs that several nodes have in common."""

from typing import Any, Final, Literal, get_args

from comfy_api.latest import io

from ...perflow_core.errors import shown
from ...perflow_core.sampling.parameterization import PREDICTION_TYPES, PredictionType
from ...perflow_core.sampling.schedule import End
from ...perflow_core.sampling.windows import MOST_WINDOWS
from ...perflow_core.weights.unet_layout import TRAINED_WINDOWS

AUTO: Final = "auto"
PredictionChoice = PredictionType | Literal["auto"]
PUBLISHED = "diff_eps for SD1.5, ddim_eps for SDXL, velocity for SD2.x"


def prediction_type(auto: str) -> io.Combo.Input:
    """auto: what "auto" chooses on this node, in words."""
    return io.Combo.Input(
        "prediction_type",
        options=[AUTO, *PREDICTION_TYPES],
        default=AUTO,
        tooltip=f"What the UNet's output means. auto: {auto}. Not used for flow models, which predict their velocity.",
    )


def windows(tooltip: str, default: int = TRAINED_WINDOWS) -> io.Int.Input:
    """tooltip: what follows "Number of time windows (K)"; default 0 stands for what the file says."""
    return io.Int.Input(
        "windows",
        default=default,
        min=min(default, 1),
        max=MOST_WINDOWS,
        tooltip=f"Number of time windows (K){tooltip}",
    )


def edges(windows: str = "windows") -> io.String.Input:
    """windows: what is used where there are none, in words."""
    return io.String.Input(
        "edges",
        default="",
        optional=True,
        advanced=True,
        tooltip="For flow models: the sigmas of the window edges, in place of a number of windows. A list that does "
        'not go from 1 to 0 is for a model that has a part of the path, such as "1, 0.94, 0.875" for the first of two '
        f"experts. Empty: {windows}.",
    )


def share(name: str, default: float, tooltip: str) -> io.Float.Input:
    """A number from 0 to 1."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def end(reference: str) -> io.Combo.Input:
    """Where a schedule ends. reference: what follows on the official end."""
    return io.Combo.Input(
        "end",
        options=list(get_args(End)),
        default="zero",
        tooltip="zero: go down to sigma 0, as ComfyUI's samplers do. reference: stop at sigma 0.029 as the official "
        f"code does{reference} A flow model ends at 0 in both.",
    )


def filename_prefix(default: str) -> io.String.Input:
    return io.String.Input(
        "filename_prefix",
        default=default,
        tooltip="Name of the file in output/perflow; a subfolder may come before it.",
    )


def align_steps(how: str = "Move the steps of any sampler and scheduler to the window grid") -> io.Boolean.Input:
    return io.Boolean.Input(
        "align_steps",
        default=True,
        advanced=True,
        tooltip=f"{how}, so that a plain KSampler takes the right steps. Turn off to sample exactly where the "
        "scheduler says.",
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
