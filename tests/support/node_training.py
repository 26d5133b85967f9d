"""Calling Train PeRFlow Delta, and the small things that it is given."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "learning_rate": 1e-3,
    "rank": 4,
    "windows": 4,
    "prediction_type": "diff_eps",
    "solving_steps": 1,
    "guidance": 0.0,
    "points_per_window": 4,
    "gradient_checkpointing": True,
    "seed": 1,
}
INPUTS = SETTINGS | {"steps": 2, "prediction_type": "auto", "filename_prefix": "trained"}


def pictures(count: int = 2, channels: int = 4, size: int = 8) -> dict[str, Tensor]:
    """A LATENT."""
    return {"samples": torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(5))}


def prompts(*values: float, width: int = 768, pooled: bool = False) -> list[Any]:
    """A CONDITIONING of as many prompts, their tokens so large."""
    options = {"pooled_output": torch.full((1, 1280), 0.1)} if pooled else {}
    tokens = torch.randn(1, 77, width, generator=torch.Generator().manual_seed(6))
    return [[value * tokens, dict(options)] for value in values]


def outputs_on(
    comfyui: Any, model: Any, latents: Any = None, positive: Any = None, negative: Any = None, **inputs: Any
) -> tuple[Any, ...]:
    """The node as the executor calls it, every input a list; returns its outputs."""
    inputs = {key: [value] for key, value in (INPUTS | inputs).items()}
    given = {"latents": latents or [pictures()], "positive": positive or [prompts(0.1)], "negative": negative}
    result: tuple[Any, ...] = comfyui.nodes["PeRFlowTrainDelta"].execute(model=[model], **given, **inputs).result
    return result


def train_on(*given: Any, **inputs: Any) -> tuple[Path, Any, Any]:
    """The path, the losses and the picture."""
    path, loss_map, image, _ = outputs_on(*given, **inputs)
    return Path(path), loss_map["loss"], image


def examples_for(comfyui: Any, model: Any, positive: Any = None, negative: Any = None) -> Any:
    examples = comfyui.module("nodes.comfyui.training.examples").Examples
    return examples(model, [pictures()], [positive or prompts(0.1)], [negative] if negative else None)


def training_on(comfyui: Any, model: Any, positive: Any = None, negative: Any = None, **settings: Any) -> Any:
    """What the node trains with."""
    module = comfyui.module("nodes.comfyui.training.delta_training")
    examples = examples_for(comfyui, model, positive, negative)
    return module.DeltaTraining(model, examples, module.Settings(**SETTINGS | settings))


class LoRA:
    """The pairs of a file, multiplied out without ComfyUI."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    def change(self, key: str, weight: Tensor) -> Tensor:
        module = key.removesuffix(".weight")
        if f"{module}.lora_up.weight" not in self.tensors:
            return torch.zeros_like(weight)
        up, down = (self.tensors[f"{module}.lora_{side}.weight"].float().flatten(1) for side in ("up", "down"))
        return (up @ down).reshape(weight.shape)
