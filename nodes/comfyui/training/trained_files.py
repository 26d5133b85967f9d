"""What training writes and continues from: the delta, and beside it the optimizer's state.

`NAME.safetensors` is a low-rank delta as every LoRA loader reads it: the running average of the adapters. `NAME.state`
holds it and the adapters in float32, and the optimizer's averages; it is used for resuming only and may be deleted.
"""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ....perflow_core.errors import shown
from ....perflow_core.sampling.parameterization import PredictionType
from ....perflow_core.sampling.windows import same_edges
from ....perflow_core.training.starting_delta import STARTED_FROM
from ....perflow_core.weights.delta_file import metadata_edges, metadata_prediction_type
from ....perflow_core.weights.extraction import source_dtype
from ....perflow_core.weights.lora_file import delta_metadata, whole_name
from ....perflow_core.weights.safetensors_writer import write_new
from ....perflow_core.weights.weights_file import WeightsFile, WeightsFileError, inspect
from ..weights.save_delta import delta_folder, save_delta
from ..weights.unet_weights import stored_weights
from .delta_training import DeltaTraining

EMBEDDED_GUIDANCE, RANGE = "embedded_guidance", " to "  # of what a model of Flux' kind was given: "3.5 to 6"
OPTIMIZER, AVERAGE = "optimizer.", "average."
STATE = ".state"
STATE_BYTES = 16  # a number of the adapters, its running average, and the optimizer's two averages of it, float32


class EarlierDelta(Protocol):
    """A file that a training begins with, and the input that it was chosen in."""

    chosen_in: ClassVar[str]

    @property
    def file(self) -> WeightsFile: ...

    @property
    def steps(self) -> int:
        """Those that were taken for it."""

    @property
    def prediction_type(self) -> PredictionType | None:
        """What it was trained with, where that is known."""

    @property
    def facts(self) -> dict[str, str]:
        """For the metadata of what is trained."""

    def settings(self, edges: list[float] | None) -> dict[str, Any]:
        """Those of the node that it changes."""

    def begin(self, training: DeltaTraining, rank: int) -> list[str]:
        """Give the student its weights, and say how; rank: the node's."""


@dataclass(frozen=True)
class Resumed:
    """A delta that training continues from: its file and the steps that were taken for it."""

    chosen_in: ClassVar[str] = "resume_from"
    path: Path
    file: WeightsFile
    steps: int

    @property
    def prediction_type(self) -> PredictionType | None:
        return metadata_prediction_type(self.file)

    @property
    def facts(self) -> dict[str, str]:
        return {key: value for key, value in self.file.metadata.items() if key == STARTED_FROM}

    def settings(self, edges: list[float] | None) -> dict[str, Any]:
        """Its own rank, and its edges in all of their digits."""
        trained = metadata_edges(self.file)
        same = edges and trained and same_edges(edges, trained)
        return {"rank": self.file.rank} | ({"edges": trained} if same else {})

    def begin(self, training: DeltaTraining, rank: int) -> list[str]:
        whole = load(training, self)
        text = f"resumed {self.file.name} after step {self.steps}"
        if self.file.rank != rank:
            text += f", with its rank {self.file.rank}"
        return [text if whole else f"{text}, without its .state file: the optimizer started anew"]


def read_resumed(path: str) -> Resumed:
    """Raises WeightsFileError for a file that this node did not write."""
    file = inspect(Path(path))
    steps = file.metadata.get("steps", "")
    if file.kind != "low-rank difference" or not steps.isdecimal():
        raise WeightsFileError(
            f"{file.name} ({file}) does not say how many steps it was trained, expected a delta that Train PeRFlow "
            "Delta wrote: choose one of those, or none to start anew; start_from takes any delta."
        )
    return Resumed(Path(path), file, int(steps))


def check_free_space(training: DeltaTraining) -> None:
    """Raises OSError where the disk has no room for the files: before the training, not after it."""
    needed = sum(p.numel() for p in training.unet.adapters.parameters) * (STATE_BYTES + 4)
    free = shutil.disk_usage(delta_folder()).free
    if free < needed:
        raise OSError(
            f"{delta_folder()} has {free / 1e6:.0f} MB free, expected at least {needed / 1e6:.0f} MB for the delta and "
            "its state: free some space or lower rank."
        )


def save(training: DeltaTraining, prefix: str, steps: int, **facts: str) -> Path:
    """Write both files under a free number; returns the delta's path."""
    dtype = source_dtype(stored_weights(training.unet.patcher).values())
    adapters, settings = training.unet.adapters, training.settings
    if embedded := sorted(training.examples.embedded_guidance):
        facts[EMBEDDED_GUIDANCE] = RANGE.join(f"{end:g}" for end in dict.fromkeys((embedded[0], embedded[-1])))
    metadata = delta_metadata(
        [settings.rank],
        **training.reflow.metadata(),
        **training.base.metadata(training.chord),
        steps=str(steps),
        batch_size=str(settings.batch_size),
        learning_rate=f"{settings.learning_rate:g}",
        guidance=f"{settings.guidance:g}" if settings.guidance else "cfg_sync",
        **facts,
    )
    with training.average.in_place():
        averaged = adapters.tensors(dtype)
    path = save_delta(averaged, prefix, metadata)
    try:
        scaler = {"scaler": json.dumps(training.scaler.state_dict())}
        write_new(adapters.tensors(torch.float32) | _kept_tensors(training), path.with_suffix(STATE), scaler)
    except OSError as error:  # the delta is there, and that is what counts
        logging.warning(
            f"{path.with_suffix(STATE).name} could not be written ({error}): a resumed run will start with "
            "a new optimizer."
        )
    return path


def load(training: DeltaTraining, resumed: Resumed) -> bool:
    """Take over a file's adapters and, where its state is there, the optimizer's; returns whether it was.

    Raises WeightsFileError for adapters that do not fit the model.
    """
    state = resumed.path.with_suffix(STATE)
    tensors = safetensors.torch.load_file(state if state.is_file() else resumed.path)
    if before := resumed.file.metadata.get(EMBEDDED_GUIDANCE):
        training.examples.embedded_guidance.update(map(float, before.split(RANGE)))
    whole = {whole_name(key): key for key in stored_weights(training.unet.patcher)}
    try:
        training.unet.adapters.load(tensors)
        training.unet.add_whole({whole[name]: dW for name, dW in tensors.items() if name in whole})
        average = training.average
        average.load(
            [tensors[f"{AVERAGE}{i}"] for i in range(len(average.theta))] if state.is_file() else average.theta
        )
    except (KeyError, RuntimeError) as error:
        raise WeightsFileError(
            f"{resumed.file.name} ({resumed.file}) does not fit the layers of this model ({shown(str(error))}), "
            "expected a delta trained on a model of the same kind: choose another file, or none to start anew."
        ) from error
    if not state.is_file():
        return False
    found: dict[int, dict[str, Tensor]] = {}
    for key in filter(lambda key: key.startswith(OPTIMIZER), tensors):
        _, i, name = key.split(".")
        found.setdefault(int(i), {})[name] = tensors[key]
    training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": found})
    with safetensors.safe_open(str(state), framework="pt") as file:
        scaler: dict[str, Any] = json.loads((file.metadata() or {}).get("scaler", "{}"))
    if scaler and training.scaler.is_enabled():
        training.scaler.load_state_dict(scaler)
    return True


def _kept_tensors(training: DeltaTraining) -> dict[str, Tensor]:
    """What a run goes on with beside the adapters."""
    state = training.optimizer.state_dict()["state"]
    kept = {f"{OPTIMIZER}{i}.{name}": tensor for i, held in state.items() for name, tensor in held.items()}
    kept |= {f"{AVERAGE}{i}": value for i, value in enumerate(training.average.values)}
    return {name: tensor.cpu() for name, tensor in kept.items()}
