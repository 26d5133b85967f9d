"""FSDP by accelerate's configuration: the student's weights, and with a LoRA the teacher's, spread over the cards."""

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, parse_flag_from_env

from .config import Config
from .stopping import TrainingError


def is_sharded(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.FSDP


def is_wanted() -> bool:
    """As accelerate's launcher tells its processes."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def check(accelerator: Accelerator, config: Config) -> None:
    """Raises TrainingError for what does not go with FSDP."""
    if not is_sharded(accelerator):
        return
    if not accelerator.is_fsdp2:
        raise TrainingError(
            "accelerate's configuration has fsdp_version 1, which cannot share a UNet between teacher and student, "
            "expected 2: start with --config_file training/configs/fsdp.yaml."
        )
    if config.student.ema_decay:
        raise TrainingError(
            f"student.ema_decay is {config.student.ema_decay:g} with FSDP, of whose running average a state keeps the "
            "first card's part alone, expected 0: set it."
        )
    if config.student.method == "lora" and config.data.kind == "prompts":
        raise TrainingError(
            'data.kind is "prompts" with FSDP and a LoRA, where all cards have to ask the teacher together, and the '
            'latents are made one by one: make them in a first start without FSDP, and give them as kind "latents".'
        )


def least(accelerator: Accelerator, number: int) -> int:
    """The smallest of the processes' numbers."""
    numbers = accelerator.gather(torch.tensor([number], device=accelerator.device))
    return int(numbers.min())
