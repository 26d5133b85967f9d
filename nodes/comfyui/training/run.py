"""A training run as the page shows it: progress, pictures now and then, and what the losses were."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import comfy.model_management
import comfy.utils
import latent_preview
import torch

from .loop import Settings, Training

PREVIEW_EVERY = 25  # steps
TELL_EVERY = 2.0  # seconds


@dataclass
class History:
    """The losses of a run: the mean of each step, and the single ones by window as (step, loss)."""

    windows: int
    losses: list[float] = field(default_factory=list)
    by_window: list[list[tuple[int, float]]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_window = [[] for _ in range(self.windows)]

    @property
    def steps(self) -> int:
        return len(self.losses)

    def add(self, windows: list[int], losses: list[float]) -> None:
        for w, loss in zip(windows, losses, strict=True):
            self.by_window[w].append((self.steps, loss))
        self.losses.append(sum(losses) / len(losses))


def run(training: Training, history: History, first: int, steps: int, tell: Callable[[str], object]) -> None:
    """Take `steps` steps, numbered from `first` on; `history` has those that were done, however it ends."""
    bar = comfy.utils.ProgressBar(steps)
    started = told = time.monotonic()
    with torch.inference_mode(False), torch.enable_grad(), training.unet:
        for done in range(1, steps + 1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            history.add(*training.step(first + done - 1))
            due = done % PREVIEW_EVERY == 0 or done == steps
            bar.update_absolute(done, steps, _picture(training) if due else None)
            now = time.monotonic()
            if now - told > TELL_EVERY:
                told, left = now, (now - started) / done * (steps - done)
                tell(f"step {done} of {steps}, loss {history.losses[-1]:.4g}, {minutes(left)} left")


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _picture(training: Training) -> tuple[object, ...]:
    """Four steps as they look by now; rough where the user has no preview method, which is no picture elsewhere."""
    latent_format = training.unet.patcher.model.latent_format
    previewer = latent_preview.get_previewer(training.unet.device, latent_format)
    if previewer is None:
        previewer = latent_preview.Latent2RGBPreviewer(
            latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
        )
    with torch.no_grad():
        return previewer.decode_latent_to_preview_image("JPEG", training.preview())


def is_out_of_memory(error: Exception) -> bool:
    """torch's own error on a GPU, and the ordinary ones that it raises on a CPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


def out_of_memory(settings: Settings, sizes: str) -> str:
    """What was too much, and what to lower."""
    checkpointing = "" if settings.gradient_checkpointing else "turn on gradient_checkpointing, or "
    return (
        f"Out of memory with batch_size {settings.batch_size}, latents of {sizes}, rank {settings.rank} and "
        f"gradient_checkpointing {'on' if settings.gradient_checkpointing else 'off'}, expected training to fit: "
        f"{checkpointing}lower batch_size, the size of the pictures, or rank."
    )
