"""A training run as the page shows it, from its first step to its file, however it ends."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import comfy.model_management
import comfy.utils
import latent_preview
import numpy as np
import torch
from comfy_api.latest import io

from ....perflow_core.errors import counted, shown
from ....perflow_core.training.descent import NotFiniteError, WindowLosses
from .. import node_text
from . import trained_files
from .delta_training import DeltaTraining

PREVIEW_EVERY = 25  # steps
NO_GRADIENT = " but no autograd formula was registered"
REPORT_EVERY = 2.0  # seconds


def train(
    node: type[io.ComfyNode], training: DeltaTraining, first: int, steps: int, prefix: str, facts: Mapping[str, str]
) -> tuple[Path, str, list[WindowLosses]]:
    """Take the steps, numbered from `first` on, and write the file: its path, how it went in words, and the losses.

    What was trained is written too where the run ends early. facts: for the file's metadata.
    """
    history: list[WindowLosses] = []
    started = time.monotonic()

    def save() -> Path:
        seconds = f"{time.monotonic() - started:.1f}"
        return trained_files.save(training, prefix, first + len(history), **facts, seconds=seconds)

    def saved_text() -> str:
        return f" What was trained until then is in {save()}." if history else " Nothing was written."

    try:
        _take_steps(training, history, first, steps, lambda text: node_text.show(node, text))
    except comfy.model_management.InterruptProcessingException:
        when = f"after step {len(history)}" if history else "before the first step"
        text = f"Interrupted {when}.{saved_text()}"
        logging.info(text)
        node_text.show(node, text)
        raise
    except Exception as error:
        raise _kind(error)(_reason(error, training, first + len(history) + 1) + saved_text()) from error
    path = save()
    return path, _report(history, path, first, time.monotonic() - started), history


def _take_steps(
    training: DeltaTraining, history: list[WindowLosses], first: int, steps: int, report: Callable[[str], object]
) -> None:
    """`history` has the steps that were done, however it ends."""
    bar = comfy.utils.ProgressBar(steps)
    started = reported = time.monotonic()
    with torch.inference_mode(False), torch.enable_grad(), training.unet.loaded():
        for done, i in enumerate(missing := training.examples.missing, start=1):
            report(f"The teacher draws picture {done} of {len(missing)}")
            training.draw(i)
        for done in range(1, steps + 1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            history.append(training.step(first + done - 1))
            due = done % PREVIEW_EVERY == 0 or done == steps
            bar.update_absolute(done, steps, _picture(training) if due else None)
            now = time.monotonic()
            if now - reported > REPORT_EVERY:
                reported, left = now, (now - started) / done * (steps - done)
                report(f"step {done} of {steps}, loss {history[-1].mean:.4g}, {_minutes(left)} left")


def _picture(training: DeltaTraining) -> tuple[object, ...] | None:
    """A picture in four steps; a rough one where the user has no preview method, for which samplers show none.

    None for models of which ComfyUI has no preview, for those that make a part of a picture only, and for latents of
    several parts.
    """
    if training.is_part or len(training.examples.shapes[0]) > 1:
        return None
    latent_format = training.unet.patcher.model.latent_format
    previewer = latent_preview.get_previewer(training.unet.device, latent_format)
    if previewer is None:
        if latent_format.latent_rgb_factors is None:
            return None
        previewer = latent_preview.Latent2RGBPreviewer(
            latent_format.latent_rgb_factors,
            latent_format.latent_rgb_factors_bias,
            latent_format.latent_rgb_factors_reshape,
        )
    with torch.no_grad():
        return previewer.decode_latent_to_preview_image("JPEG", training.preview())


def _kind(error: Exception) -> type[Exception]:
    """What to raise instead: after its own OOM_EXCEPTION, for a GPU's memory, ComfyUI unloads its models."""
    if isinstance(error, ValueError) and not isinstance(error, NotFiniteError):
        return ValueError
    of_gpu = isinstance(error, (comfy.model_management.OOM_EXCEPTION, getattr(torch, "AcceleratorError", ())))
    return comfy.model_management.OOM_EXCEPTION if of_gpu and _is_out_of_memory(error) else RuntimeError


def _is_out_of_memory(error: Exception) -> bool:
    """torch's own error on a GPU, and the ordinary ones that it raises on a CPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


def _reason(error: Exception, training: DeltaTraining, step: int) -> str:
    """What stopped the run in this step, in one sentence."""
    if isinstance(error, NotFiniteError):
        return (
            f"The loss became NaN or Inf in training step {step}, expected finite numbers: lower learning_rate, or try "
            "another seed."
        )
    if NO_GRADIENT in str(error):
        return (
            f"ComfyUI's code of this model ({type(training.unet.patcher.model).__name__}) has an operation without a "
            f"gradient ({shown(str(error).partition(NO_GRADIENT)[0], 80)}), expected one that can be trained: update "
            "ComfyUI, or train on another model."
        )
    if not _is_out_of_memory(error):
        text = str(error).strip() or type(error).__name__
        return text if text.endswith(".") else f"{text}."
    settings = training.settings
    shapes = {tuple(first[1:]) for first, *_ in training.examples.shapes}  # without channels
    sizes = " and ".join("x".join(map(str, shape)) for shape in sorted(shapes, reverse=True)[:2])
    switches = {"gradient_checkpointing": settings.gradient_checkpointing}
    if training.unet.patcher.load_device != training.unet.patcher.offload_device:
        switches["offloading"] = settings.offloading
    advice = "".join(f"turn on {name}, or " for name, on in switches.items() if not on)
    return (
        f"Out of memory with batch_size {settings.batch_size}, latents of {sizes}, rank {settings.rank} and "
        f"gradient_checkpointing {'on' if settings.gradient_checkpointing else 'off'}, expected training to fit: "
        f"{advice}lower batch_size, the size of the pictures, or rank."
    )


def _report(history: list[WindowLosses], path: Path, first: int, seconds: float) -> str:
    """The file, how long it took, and how the loss went."""
    tenth = max(1, len(history) // 10)
    start, end = (np.mean([losses.mean for losses in part]) for part in (history[:tenth], history[-tenth:]))
    steps = counted(len(history), "step") + (f", {first + len(history)} in all" if first else "")
    return (
        f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, {steps}, {_minutes(seconds)}\n"
        f"loss {start:.4g} in the first tenth of the steps, {end:.4g} in the last tenth"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
