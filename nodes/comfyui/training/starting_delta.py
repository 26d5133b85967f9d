"""A delta that a training begins with: the first directions of each dW as the adapters, the rest of it as it is."""

from dataclasses import dataclass
from typing import Any, ClassVar

import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....perflow_core.errors import tensors_named
from ....perflow_core.sampling.parameterization import PredictionType
from ....perflow_core.training.starting_delta import STARTED_FROM, Beginning, delta_prediction, other_guidance
from ....perflow_core.weights.delta_fit import DeltaFit
from ....perflow_core.weights.weights_file import WeightsFile
from ..sampling.base_sampling import base_of
from ..weights.delta_patches import fitting_delta
from .delta_training import DeltaTraining


@dataclass(frozen=True)
class StartingDelta:
    """Any delta that fits the model."""

    chosen_in: ClassVar[str] = "start_from"
    delta: DeltaFit
    prediction_type: PredictionType | None
    steps: int = 0

    @property
    def file(self) -> WeightsFile:
        return self.delta.file

    @property
    def facts(self) -> dict[str, str]:
        return {STARTED_FROM: self.file.name}

    def settings(self, edges: list[float] | None) -> dict[str, Any]:
        return {}

    def begin(self, training: DeltaTraining, rank: int) -> list[str]:
        return [
            *begin_with(training, self.delta),
            *filter(None, [other_guidance(self.file, training.settings.guidance)]),
        ]


def read_start(model: ModelPatcher, path: str) -> StartingDelta:
    """Raises WeightsFileError for a file that does not fit the model, or was made for models that predict another
    thing.
    """
    delta = fitting_delta(model, path, partial=False, strength=1.0)
    return StartingDelta(delta, delta_prediction(delta, base_of(model)))


def begin_with(training: DeltaTraining, delta: DeltaFit) -> list[str]:
    """Give the student a delta that fits its model, and say what it got of it.

    dW of a linear layer or a convolution becomes the nearest matrix of the adapter's rank; differences of norms and
    biases stay whole, and are not trained.
    """
    unet, beginning = training.unet, Beginning()
    whole: dict[str, Tensor] = {}
    left_out = []
    for key, change in delta.changes.items():
        dW = change.multiplied_out(unet.device)
        name, _, kind = key.rpartition(".")
        adapter = unet.adapters.by_name.get(name) if kind == "weight" else None
        if not dW.any():
            continue
        if adapter:
            unet.adapters.begin_with(name, *beginning.directions(dW, adapter.up.shape[1]))
        elif kind in ("weight", "bias") and hasattr(comfy.utils.get_attr(unet.patcher.model, name), f"{kind}_function"):
            whole[key] = dW
            beginning.add(dW, dW)
        else:
            left_out.append(key)
            beginning.add(dW, None)
    unet.add_whole(whole)
    lines = [beginning.text(delta.file.name)]
    if left_out:
        lines.append(f"left out of it, being of no layer: {tensors_named(left_out)}")
    return lines
