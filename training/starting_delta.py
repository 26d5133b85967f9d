"""A delta that the student begins with, `student.delta`: any file that Apply PeRFlow Delta reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from perflow_core.errors import UnusableError
from perflow_core.sampling.parameterization import PredictionType
from perflow_core.training import starting_delta
from perflow_core.weights import unet_names
from perflow_core.weights.delta_changes import changes_of
from perflow_core.weights.delta_file import check_base, check_is_delta, metadata_windows
from perflow_core.weights.delta_fit import DeltaFit, check_numbers, fit
from perflow_core.weights.transformer_names import TransformerNames
from perflow_core.weights.weights_file import inspect

from .config import Config
from .made_with import digest
from .stopping import TrainingError
from .teacher import Teacher

DIGEST = "the delta to begin with"  # what the digest of its file is called to users
ANEW = "leave student.delta out"


@dataclass(frozen=True)
class StartingDelta:
    """A delta that fits the teacher.

    digest: of its file; names: as `Teacher.names`; parts: diffusers' weights that each weight of a file is made of, and
    how many rows each of them has.
    """

    delta: DeltaFit
    prediction_type: PredictionType | None  # None: not known, or a flow model's
    digest: str
    names: TransformerNames | None
    parts: Mapping[str, Mapping[str, int]]

    @property
    def name(self) -> str:
        return self.delta.file.name

    @property
    def facts(self) -> dict[str, str]:
        """For the metadata of what is trained."""
        return {starting_delta.STARTED_FROM: self.name}

    def differences(self, device: torch.device, wanted: Callable[[str], object] = bool) -> Iterator[tuple[str, Tensor]]:
        """dW in float32 of each weight that is wanted, by diffusers' names."""
        for key, change in self.delta.changes.items():
            rows = self.parts[key]
            if all(map(wanted, rows)):
                dW = change.multiplied_out(device)
                yield from (self.names.apart(dW, rows) if self.names else {key: dW}).items()

    def check(self, prediction_type: PredictionType, windows: int, edges: Sequence[float]) -> None:
        """Raises TrainingError where it was trained for another output or other windows; edges: of a flow model."""
        file = self.delta.file
        with _errors():
            trained = {"windows": metadata_windows(file), "prediction_type": self.prediction_type}
            chosen = {"windows": windows, "prediction_type": prediction_type}
            starting_delta.check_same(file, trained, chosen, "[student] says", ANEW)
            starting_delta.check_edges(file, edges, "the run has", ANEW)

    def other_guidance(self, config: Config) -> str:
        guidance = config.teacher.guidance
        return starting_delta.other_guidance(self.delta.file, 0.0 if isinstance(guidance, str) else guidance)


def read(config: Config, teacher: Teacher) -> StartingDelta | None:
    """The delta that the configuration names, None for none; the teacher is as it was loaded.

    Raises TrainingError for a file that is none, does not fit the teacher, or was made for other models.
    """
    path = Path(config.student.delta)
    if not config.student.delta:
        return None
    weights, names = teacher.unet.state_dict(), teacher.names
    layout = (names.layout if names else unet_names.layout_of)(weights, teacher.architecture)
    with _errors():
        try:
            file = inspect(path)
            check_is_delta(file, layout.family)
            check_base(file, teacher.base.predicts)
            tensors = safetensors.torch.load_file(path)
            digested = digest([np.memmap(path, np.uint8, "r").data])
        except OSError as error:
            raise TrainingError(f"student.delta: {path} cannot be read ({error}): give the path of a delta.") from error
        delta = fit(file, changes_of(file, tensors, layout), layout)
        check_numbers(delta, 1.0, {})
        trained = starting_delta.delta_prediction(delta, teacher.base)
        parts = names.parts(weights) if names else {key: (key,) for key in weights}
        rows = {key: {part: len(weights[part]) for part in of_it} for key, of_it in parts.items()}
        return StartingDelta(delta, trained, digested, names, rows)


@contextmanager
def _errors() -> Iterator[None]:
    """The core's errors as TrainingErrors that name the key, and what to do where the core leaves that open."""
    try:
        yield
    except UnusableError as error:
        advised = error.advised(f"choose another delta, or {ANEW}") if error.problem else error
        raise TrainingError(f"student.delta: {advised}") from error
