"""A delta that a training begins with: the first directions of each dW as the adapters, the rest of it as it is."""

from dataclasses import dataclass
from typing import Any, ClassVar

import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....perflow_core.errors import tensors_named
from ....perflow_core.sampling.parameterization import PredictionType, usual_base
from ....perflow_core.training.base import Base
from ....perflow_core.weights.delta_file import metadata_base_prediction, metadata_prediction_type
from ....perflow_core.weights.delta_fit import DeltaFit
from ....perflow_core.weights.delta_settings import learned_guidance
from ....perflow_core.weights.lowrank import first_directions, squared_norm
from ....perflow_core.weights.unet_layout import TRAINED_PREDICTION
from ....perflow_core.weights.weights_file import WeightsFile, WeightsFileError
from ..sampling.base_sampling import base_of
from ..weights.delta_patches import fitting_delta
from .delta_training import DeltaTraining
from .trained_files import STARTED_FROM


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

    def settings(self, rank: int, edges: list[float] | None) -> dict[str, Any]:
        return {}

    def begin(self, training: DeltaTraining, rank: int) -> list[str]:
        lines = begin_with(training, self.delta)
        learned, own = learned_guidance(self.file), training.settings.guidance
        if (learned or 0) != (own if own > 1 else 0):
            others = f"CFG {learned:g}" if learned else "no CFG"
            lines.append(f"It had learned {others}, and this training teaches {f'CFG {own:g}' if own > 1 else 'none'}.")
        return lines


def read_start(model: ModelPatcher, path: str) -> StartingDelta:
    """Raises WeightsFileError for a file that does not fit the model, or was made for models that predict another
    thing.
    """
    delta, base = fitting_delta(model, path, partial=False, strength=1.0), base_of(model)
    if not isinstance(base, Base):
        return StartingDelta(delta, None)
    trained = metadata_prediction_type(delta.file) or TRAINED_PREDICTION.get(delta.unet.family)
    predicted = metadata_base_prediction(delta.file) or (usual_base(trained) if trained else base.predicts)
    if predicted != base.predicts:
        raise WeightsFileError(
            f"{delta.file.name} was made for models that predict {predicted}, and this one predicts {base.predicts}, "
            "expected the same: choose another delta, or none to start anew."
        )
    return StartingDelta(delta, trained)


def begin_with(training: DeltaTraining, delta: DeltaFit) -> list[str]:
    """Give the student a delta that fits its model, and say what it got of it.

    dW of a linear layer or a convolution becomes the nearest matrix of the adapter's rank (Eckart and Young 1936);
    differences of norms and biases stay whole, and are not trained.
    """
    unet = training.unet
    whole: dict[str, Tensor] = {}
    left_out = []
    energy = kept = 0.0
    for key, change in delta.changes.items():
        dW = change.multiplied_out(unet.device)
        energy += (all_of_it := squared_norm(dW))
        name, _, kind = key.rpartition(".")
        adapter = unet.adapters.by_name.get(name) if kind == "weight" else None
        if all_of_it == 0:
            continue
        if adapter:
            up, down = first_directions(dW, adapter.up.shape[1])
            unet.adapters.begin_with(name, up, down)
            kept += squared_norm(up @ down.flatten(1))
        elif kind in ("weight", "bias") and hasattr(comfy.utils.get_attr(unet.patcher.model, name), f"{kind}_function"):
            whole[key] = dW
            kept += all_of_it
        else:
            left_out.append(key)
    unet.add_whole(whole)
    share = kept / energy if energy else 1.0
    lines = [f"begins with {delta.file.name}; this rank keeps {100 * share:.3g} % of its energy"]
    if left_out:
        lines.append(f"left out of it, being of no layer: {tensors_named(left_out)}")
    return lines
