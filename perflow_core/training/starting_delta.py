"""A delta that a training begins with: whether it is for this training, and how much of it the student gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..sampling.parameterization import PredictionType, usual_base
from ..sampling.windows import edges_text, same_edges
from ..weights.delta_file import metadata_base_prediction, metadata_edges, metadata_prediction_type
from ..weights.delta_fit import DeltaFit
from ..weights.delta_settings import learned_guidance
from ..weights.lowrank import first_directions, squared_norm
from ..weights.unet_layout import TRAINED_PREDICTION
from ..weights.weights_file import WeightsFile, WeightsFileError
from .base import Base, FlowBase

STARTED_FROM = "started_from"  # in the metadata of what is trained: the name of the delta that it began with


@dataclass
class Beginning:
    """What a student gets of a delta; energy, kept: squared Frobenius norms of all dW, and of what it got of them."""

    energy: float = 0.0
    kept: float = 0.0

    def add(self, dW: Tensor, kept: Tensor | None) -> None:
        """Count one weight's difference, float32, and what the student gets of it, None for nothing."""
        self.energy += squared_norm(dW)
        self.kept += 0.0 if kept is None else squared_norm(kept)

    def directions(self, dW: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """up and down of the nearest matrix of an adapter's rank (Eckart and Young 1936), as `first_directions`."""
        up, down = first_directions(dW, rank)
        self.add(dW, up @ down.flatten(1))
        return up, down

    def text(self, name: str) -> str:
        """Say how it began with the file of that name."""
        share = self.kept / self.energy if self.energy else 1.0
        return f"begins with {name}; this rank keeps {100 * share:.3g} % of its energy"


def delta_prediction(delta: DeltaFit, base: Base | FlowBase) -> PredictionType | None:
    """What a delta's student was trained with, by its file, else as the authors' for that family; None for a flow's.

    Raises WeightsFileError where it was made for models that predict another thing.
    """
    if not isinstance(base, Base):
        return None
    trained = metadata_prediction_type(delta.file) or TRAINED_PREDICTION.get(delta.unet.family)
    predicted = metadata_base_prediction(delta.file) or (usual_base(trained) if trained else base.predicts)
    if predicted != base.predicts:
        raise WeightsFileError(
            f"{delta.file.name} was made for models that predict {predicted}, and this one predicts {base.predicts}, "
            "expected the same: choose another delta, or none to start anew."
        )
    return trained


def check_same(
    file: WeightsFile, trained: Mapping[str, object], chosen: Mapping[str, object], says: str, otherwise: str
) -> None:
    """Raises WeightsFileError where a file was trained with other settings than are chosen; None is not known.

    says: who has chosen, "the node says"; otherwise: what else than these settings can be done.
    """
    for name, value in chosen.items():
        found = trained.get(name)
        if found is not None and found != value:
            raise WeightsFileError(
                f"{file.name} was trained with {name} {found}, and {says} {value}, expected the same: set it as in "
                f"the file, or {otherwise}."
            )


def check_edges(file: WeightsFile, own: Sequence[float], has: str, otherwise: str) -> None:
    """Raises WeightsFileError for a flow model's delta whose windows are elsewhere.

    own: the sigmas of the training's window edges; has: who has them, "the node has".
    """
    edges = metadata_edges(file)
    if edges is not None and not same_edges(edges, own):
        raise WeightsFileError(
            f"{file.name} has windows at the sigmas {edges_text(edges)}, and {has} {edges_text(own)}, expected the "
            f"same: give the model the shift that the file was trained at, or the same edges, or {otherwise}."
        )


def other_guidance(file: WeightsFile, own: float) -> str:
    """The sentence where a file has learned another CFG than a training teaches, else empty; own: 0 or 1 for none."""
    learned = learned_guidance(file)
    if (learned or 0) == (own if own > 1 else 0):
        return ""
    others = f"CFG {learned:g}" if learned else "no CFG"
    return f"It had learned {others}, and this training teaches {f'CFG {own:g}' if own > 1 else 'none'}."
