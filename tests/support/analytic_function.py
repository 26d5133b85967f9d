"""The analytic model of tests/golden as a function, without ComfyUI, in whatever precision x has."""

from typing import Any

import torch
from torch import Tensor

Reference = dict[str, Any]


def m(constants: dict[str, float], x: Tensor, t: float) -> Tensor:
    """A tanh(a x + b t / 1000 + c) + B x."""
    p = constants
    return p["A"] * torch.tanh(p["a"] * x + p["b"] * t / 1000 + p["c"]) + p["B"] * x


def guided(reference: Reference, x: Tensor, t: float, cfg: float) -> Tensor:
    """The output with classifier-free guidance."""
    cond = m(reference["model_cond"], x, t)
    if cfg == 1:
        return cond
    uncond = m(reference["model_uncond"], x, t)
    return uncond + cfg * (cond - uncond)


def latent(reference: Reference, values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(reference["shape"])


def start(reference: Reference) -> Tensor:
    return latent(reference, reference["x_init"])
