"""What a training run keeps: how long it has gone on, the running average of its weights, and its file of both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

if TYPE_CHECKING:  # Python 3.10 has none
    from typing_extensions import NotRequired


WEIGHTS = Path(__file__).with_name("weights")  # what is stored in this repository


class State(TypedDict):
    seconds: float  # of training so far, all runs together
    step: int
    ema: list[Tensor]  # the running average, in the order of the parameters
    standardised: NotRequired[bool]  # whether the autoencoder's latents have been given mean 0 and deviation 1


def first_state(weights: Iterable[Tensor]) -> State:
    return {"seconds": 0.0, "step": 0, "ema": [weight.detach().clone() for weight in weights]}


def average(state: State, weights: Iterable[Tensor], longest: float) -> None:
    """Move the average towards the weights: in step n it keeps n / (n + 10) of itself, at most `longest`."""
    keep = min(longest, state["step"] / (state["step"] + 10))
    torch._foreach_lerp_(state["ema"], [weight.detach() for weight in weights], 1 - keep)


def save(contents: dict[str, Any] | Tensor, file: Path) -> None:
    """Write it whole or not at all."""
    unfinished = file.with_suffix(".part")
    torch.save(contents, unfinished)
    unfinished.replace(file)
