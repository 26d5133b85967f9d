"""Where losses and previews go on the way: tensorboard's files and wandb's pages, by accelerate's trackers."""

import secrets
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker
from accelerate.utils import is_wandb_available
from PIL import Image

from perflow_core.atomic_file import atomic_write

from .config import Config
from .stopping import TrainingError


def check(config: Config) -> None:
    """Raises TrainingError where a tracker is not installed."""
    if "wandb" in config.tracking.trackers and not is_wandb_available():
        raise TrainingError(
            'tracking.trackers has "wandb", which is not installed in the environment of this program: install it as '
            "docs/training.md says, or leave it out."
        )


def begin(accelerator: Accelerator, config: Config, step: int) -> None:
    """Start the trackers of a run that has done so many steps. Raises TrainingError."""
    made: list[GeneralTracker] = []
    if accelerator.is_main_process:
        for name in config.tracking.trackers:
            made.append(_tensorboard(config, step) if name == "tensorboard" else _wandb(config, step))
    accelerator.log_with = made
    try:
        accelerator.init_trackers("")  # each has its name already
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        raise TrainingError(
            f"wandb cannot begin ({' '.join(str(error).split())}): run `wandb login`, set WANDB_MODE=offline, or leave "
            "it out of tracking.trackers."
        ) from error


def show(accelerator: Accelerator, sheet: Image.Image, step: int) -> None:
    """A sheet of pictures, on the main process."""
    for tracker in accelerator.trackers:
        layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        tracker.log_images({"preview": np.array(sheet)[None]}, step, **layout)


def _tensorboard(config: Config, step: int) -> GeneralTracker:
    """In OUTPUT/tensorboard; what a crash left of later steps is not shown."""
    return TensorBoardTracker("tensorboard", config.output, purge_step=step)


def _wandb(config: Config, step: int) -> GeneralTracker:
    """A run of its own from step 0 on, which a continuation goes on with."""
    note = Path(config.output) / "wandb-run.txt"
    if step == 0 or not note.is_file():
        with atomic_write(note) as unfinished:
            unfinished.write_text(secrets.token_hex(4), encoding="utf-8")
    values = config.model_dump()
    return WandBTracker(
        config.tracking.project, id=note.read_text(encoding="utf-8"), resume="allow", name=config.save.name,
        dir=config.output, config=values,
    )  # fmt: skip
