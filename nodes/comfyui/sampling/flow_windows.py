"""The windows of a flow model: its own sampling stays as it is, and a note on the MODEL says where the windows are.

So samplers, `percent_to_sigma` and previews find what they expect, and a node that sets another shift changes where
steps stand in the windows, not the windows.
"""

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_sampling as stock
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....perflow_core.errors import counted, shown
from ....perflow_core.sampling import tolerances
from ....perflow_core.sampling.chord import shifted
from ....perflow_core.sampling.windows import edges_text, parse_edges
from ....perflow_core.training.base import FlowBase
from .perflow_sampling import WindowSteps

PREDICTION_UNUSED = "prediction_type is not used: a flow model predicts its velocity."
EDGES = "perflow_edges"  # the MODEL's note: the sigmas of its window edges, falling


class FlowWindows(WindowSteps):
    """The steps of a flow model with windows; sampling: the one that it has now."""

    def __init__(self, sampling: Any, base: FlowBase, edges: Sequence[float]):
        self.chord = base.chord(edges)
        self.sigma_min: Tensor = sampling.sigma_min
        self.sigma_max: Tensor = sampling.sigma_max


def flow_base(sampling: Any) -> FlowBase | None:
    """None for a sampling that is not straight in sigma, whatever its class is called: it is asked for numbers."""
    if not isinstance(sampling, stock.CONST):
        return None
    zero, half, one, two = (torch.full((1,), value) for value in (0.0, 0.5, 1.0, 2.0))
    middle, noise_scale = sampling.percent_to_sigma(0.5), float(sampling.noise_scaling(one, one.clone(), zero))
    if not 0 < middle < 1:
        return None
    shift = middle / (1 - middle)
    pairs: list[tuple[Any, Any]] = [
        (sampling.calculate_input(half, two), 2.0),
        (sampling.calculate_denoised(half, one, two), 1.5),
        (sampling.noise_scaling(half, one.clone(), two), 1 + noise_scale / 2),
        *((sampling.percent_to_sigma(p), shifted(torch.tensor(1 - p).double(), shift)) for p in (0.25, 0.75)),
    ]
    straight = all(math.isclose(float(x), float(y), rel_tol=tolerances.SAME_LEVEL) for x, y in pairs)
    return FlowBase(shift, noise_scale) if straight else None


def flow_windows(model: ModelPatcher) -> FlowWindows | None:
    """None for a MODEL without a note of windows, or whose sampling is not a flow model's any more."""
    edges, sampling = model.get_attachment(EDGES), model.get_model_object("model_sampling")
    base = flow_base(sampling) if edges else None
    return FlowWindows(sampling, base, edges) if base else None


def flow_lines(edges: Sequence[float], prediction_chosen: bool, windows: int = 0) -> list[str]:
    """How a flow model with windows samples, in words, and a line for each input that was set in vain.

    windows: their number on the node, 0 where it is not set.
    """
    lines = [f"flow, {counted(len(edges) - 1, 'window')}: sigma {edges_text(edges)}"]
    if edges[0] < 1 or edges[-1] > 0:
        lines.append(
            "This is a part of the path, and another model takes the rest: use Window Schedule for each of them."
        )
    if prediction_chosen:
        lines.append(PREDICTION_UNUSED)
    if windows not in (0, len(edges) - 1):
        lines.append(f"edges is used, windows ({windows}) is not.")
    return lines


def given_edges(base: Any, text: str) -> list[float] | None:
    """The node's input `edges`, None where it is empty. Raises ValueError for other than edges, or another model."""
    if text and not isinstance(base, FlowBase):
        raise ValueError(
            f'edges is "{shown(text, 40)}" for a model that is not a flow model, expected none: clear edges and set '
            "windows."
        )
    return parse_edges(text or "")
