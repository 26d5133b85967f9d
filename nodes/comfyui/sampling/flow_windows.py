"""The windows of a flow model: its own sampling stays as it is, and a note on the MODEL says where the windows are.

So samplers, `percent_to_sigma` and previews find what they expect, and a node that sets another shift changes where
steps stand in the windows, not the windows.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import comfy.model_sampling as stock
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....perflow_core.errors import counted, shown
from ....perflow_core.sampling import tolerances
from ....perflow_core.sampling.chord import WindowChord, shifted
from ....perflow_core.sampling.parameterization import BasePrediction, Derivative, UNet, velocity_predictor
from ....perflow_core.sampling.windows import Windows, parse_edges
from ....perflow_core.training.trajectory import TeacherTrajectory
from .perflow_sampling import WindowSteps

PREDICTION_UNUSED = "prediction_type is not used: a flow model predicts its velocity."
MOST_SHOWN, AS_SHOWN = 12, 1e-4  # edges in a line; how near they are when four digits are the same
EDGES = "perflow_edges"  # the MODEL's note: the sigmas of its window edges, falling


class FlowBase(NamedTuple):
    """How a flow model samples: x = (1 - sigma) x0 + sigma n noise, its shift a (`chord.shifted`) and noise scale n."""

    shift: float
    noise_scale: float
    predicts: BasePrediction = "flow"

    def edges(self, windows: int) -> list[float]:
        """The sigmas of windows that are even in the time before the shift."""
        edges: list[float] = shifted(Windows.even(windows).edges, self.shift).tolist()
        return edges

    def chord(self, windows: int | Sequence[float]) -> WindowChord:
        """windows: their number, or the sigmas of their edges."""
        edges = self.edges(windows) if isinstance(windows, int) else windows
        return WindowChord.of_flow(edges, self.shift)

    def trajectory(self, chord: WindowChord, n: int) -> TeacherTrajectory:
        return TeacherTrajectory.of_flow(chord, n)

    def derivative(
        self, network: UNet, chord: WindowChord, trajectory: TeacherTrajectory, guidance: float
    ) -> Derivative:
        """The velocity by the network, on the device of the tables."""
        return velocity_predictor(network, chord.timestep(trajectory.sigma), guidance)

    def pure_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """x at the top of the path."""
        return sigma * self.noise_scale * noise

    def level(self, chord: WindowChord, T: Tensor) -> Tensor:
        """What ComfyUI's model is called with at the time T: sigma."""
        return chord.sigma(T)

    def metadata(self, chord: WindowChord) -> dict[str, str]:
        """Where the windows of a delta are, for its file."""
        return {
            "base_prediction": self.predicts,
            "edges": ",".join(f"{sigma:.9g}" for sigma in chord.own_edges),
            "shift": f"{self.shift:.6g}",
        }


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


def edges_text(edges: Sequence[float]) -> str:
    """Sigmas for a reader, the middle of a long list left out."""
    words = [f"{edge:.4g}" for edge in edges]
    return " ".join(words if len(words) <= MOST_SHOWN else [*words[: MOST_SHOWN - 2], "...", words[-1]])


def same_edges(one: Sequence[float], other: Sequence[float]) -> bool:
    """As far as `edges_text` shows them."""
    return len(one) == len(other) and all(abs(a - b) < AS_SHOWN for a, b in zip(one, other, strict=True))


def given_edges(base: Any, text: str) -> list[float] | None:
    """The node's input `edges`, None where it is empty. Raises ValueError for other than edges, or another model."""
    if text and not isinstance(base, FlowBase):
        raise ValueError(
            f'edges is "{shown(text, 40)}" for a model that is not a flow model, expected none: clear edges and set '
            "windows."
        )
    return parse_edges(text or "")
