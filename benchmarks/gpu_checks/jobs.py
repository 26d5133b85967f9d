"""What a worker can be asked for, by name."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from . import latency, models, returns, steps, weights
from .comfy import Comfy, used
from .worker import Found


def card(comfy: Comfy, say: Callable[[str], None]) -> Found:
    """What it runs on; the answer also says that the process has started, the card's context with it."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    dynamic = ", dynamic VRAM" if comfy.dynamic else ""
    python = sys.version.split()[0]
    say(f"{name}, torch {torch.__version__}, Python {python}, mode {comfy.mode}{dynamic}; {used() / 1e9:.1f} GB in use")
    return {"card": name, "torch": torch.__version__, "python": python, "dynamic": comfy.dynamic}


def make(comfy: Comfy, say: Callable[[str], None], size: str, small: bool) -> Found:
    """The files of a model, which every worker finds in the common folder."""
    from comfy.model_management import get_torch_device

    found = models.make_files(comfy.folder, size, small, get_torch_device())
    say(f"made {size}: " + ", ".join(f"{name} {number:.0f}M" for name, number in found.items()))
    return {"millions": found}


Job = Callable[..., Found]


def as_a_node(job: Job) -> Job:
    """As ComfyUI runs nodes."""

    @functools.wraps(job)
    def run(*arguments: Any, **inputs: Any) -> Found:
        with torch.inference_mode():
            return job(*arguments, **inputs)

    return run


ALL: dict[str, Job] = {
    "card": card,
    "make": make,
    "steps": steps.steps,
    "latency": latency.latency,
    "memory": weights.memory,
    "returns": returns.returns,
    "hooks": weights.hooks,
    "compiled": weights.compiled,
    "extract": weights.extract,
}
JOBS = {name: as_a_node(job) for name, job in ALL.items()}
