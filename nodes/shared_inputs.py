"""Inputs that several nodes have in common."""

from typing import Final, Literal

from comfy_api.latest import io

from ..perflow_core.parameterization import PREDICTION_TYPES, PredictionType

AUTO: Final = "auto"
PredictionChoice = PredictionType | Literal["auto"]


def prediction_type(auto: str) -> io.Combo.Input:
    """auto: what "auto" does on this node, in words."""
    return io.Combo.Input(
        "prediction_type",
        options=[AUTO, *PREDICTION_TYPES],
        default=AUTO,
        tooltip=f"What the UNet's output means. auto: {auto}SD1.5 diff_eps, SDXL ddim_eps, SD2.x velocity.",
    )


def align_steps() -> io.Boolean.Input:
    return io.Boolean.Input(
        "align_steps",
        default=True,
        advanced=True,
        tooltip="Lay the steps of any sampler and scheduler on the window grid, so that a plain KSampler is right. "
        "Turn off to sample exactly where the scheduler says.",
    )
