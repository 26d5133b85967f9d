"""The optimizers that a configuration may name, and the memory that each takes."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers.optimization import Adafactor

from .config import OptimizerConfig
from .stopping import TrainingError

IN_32_BITS = 4096  # bitsandbytes keeps the averages of a tensor with fewer numbers in float32
BLOCK = 256  # its numbers that share a scale


def check(config: OptimizerConfig, device: torch.device) -> None:
    """Raises TrainingError where it cannot be had."""
    if config.kind == "adamw_8bit":
        _bitsandbytes(device)


def make(config: OptimizerConfig, weights: Iterable[torch.nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """Raises TrainingError where it cannot be had."""
    rates: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.kind == "adamw":
        return torch.optim.AdamW(weights, betas=config.betas, fused=True, **rates)
    if config.kind == "adamw_8bit":
        return _bitsandbytes(device).AdamW8bit(weights, betas=config.betas, **rates)
    # Without its own idea of the rate, so that learning_rate means what it means with AdamW.
    return Adafactor(weights, scale_parameter=False, relative_step=False, warmup_init=False, **rates)


def _bitsandbytes(device: torch.device) -> Any:
    otherwise = 'or set optimizer.kind to "adafactor", which needs neither'
    if device.type != "cuda":
        raise TrainingError(
            f'optimizer.kind is "adamw_8bit" on the device "{device.type}", expected a CUDA device: use one, '
            f"{otherwise}."
        )
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise TrainingError(
            f'optimizer.kind is "adamw_8bit", and bitsandbytes cannot be used ({error}): install it into the '
            f"environment of this program as docs/training.md says, {otherwise}."
        ) from error
    return optim


def state_bytes(kind: str, weights: Iterable[Tensor]) -> int:
    """What an optimizer keeps of trained weights in float32, after its first step."""
    return sum(_state_bytes(kind, weight) for weight in weights)


def _state_bytes(kind: str, weight: Tensor) -> int:
    count = weight.numel()
    if kind == "adamw" or (kind == "adamw_8bit" and count < IN_32_BITS):
        return 8 * count
    if kind == "adamw_8bit":
        return 2 * (count + 4 * -(-count // BLOCK))
    if weight.ndim < 2:
        return 4 * count
    return 4 * (count // weight.shape[-1] + count // weight.shape[-2])
