"""A training run from its first step to its file, however it ends, and what is said of it."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io

from .. import node_text
from . import files
from .loop import NotFiniteError, Training
from .run import History, is_out_of_memory, minutes, out_of_memory, run


def train(
    node: type[io.ComfyNode], training: Training, first: int, steps: int, prefix: str, said: Mapping[str, str]
) -> tuple[Path, str, History]:
    """Take the steps, numbered from `first` on, and write the file: its path, how it went in words, and the losses.

    What was trained is written too where the run ends early. said: what the file says of itself, among other things.
    """
    history, started = History(training.settings.windows), time.monotonic()

    def kept() -> Path | None:
        seconds = f"{time.monotonic() - started:.1f}"
        return files.save(training, prefix, first + history.steps, **said, seconds=seconds) if history.steps else None

    try:
        run(training, history, first, steps, lambda text: node_text.show(node, text))
    except comfy.model_management.InterruptProcessingException:
        when = f"after step {history.steps}" if history.steps else "before the first step"
        text = f"Interrupted {when}.{kept_text(kept())}"
        logging.info(text)
        node_text.show(node, text)
        raise
    except (NotFiniteError, RuntimeError, MemoryError) as error:
        raise kind(error)(reason(error, training) + kept_text(kept())) from error
    path = kept()
    assert path is not None
    return path, report(history, path, first, time.monotonic() - started), history


def kind(error: Exception) -> type[Exception]:
    """What to raise in its place: ComfyUI unloads its models after its own kind, which is of a GPU's memory."""
    of_gpu = isinstance(error, (comfy.model_management.OOM_EXCEPTION, getattr(torch, "AcceleratorError", ())))
    return comfy.model_management.OOM_EXCEPTION if of_gpu and is_out_of_memory(error) else RuntimeError


def reason(error: Exception, training: Training) -> str:
    """What stopped the run, in one sentence."""
    if isinstance(error, NotFiniteError):
        return f"{error}, expected finite numbers: lower learning_rate, or try another seed."
    if is_out_of_memory(error):
        shapes = {tuple(latent.shape[1:]) for latent in training.examples.latents}
        sizes = " and ".join(f"{height}x{width}" for height, width in sorted(shapes, reverse=True)[:2])
        return out_of_memory(training.settings, sizes)
    return str(error)


def kept_text(path: Path | None) -> str:
    return f" What was trained until then is in {path}." if path else " Nothing was written."


def report(history: History, path: Path, first: int, seconds: float) -> str:
    """The file, how long it took, and how the loss went."""
    tenth = max(1, history.steps // 10)
    start, end = np.mean(history.losses[:tenth]), np.mean(history.losses[-tenth:])
    steps = f"{history.steps} step{'s' if history.steps > 1 else ''}" + (
        f", {first + history.steps} in all" if first else ""
    )
    return (
        f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, {steps}, {minutes(seconds)}\n"
        f"loss {start:.4g} in the first tenth of the steps, {end:.4g} in the last tenth"
    )
