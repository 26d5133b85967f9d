"""What learns: the whole UNet in float32, or a LoRA on the teacher's, and the running average of either."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import EMAModel
from peft import LoraConfig

from .config import Config
from .draws import Purpose, generator
from .teacher import Teacher

# Where the difference of a trained PeRFlow lies: attention, feed-forward and the convolutions of the blocks.
LORA_TARGETS = [
    "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out",
    "conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv",
]  # fmt: skip


def make(config: Config, teacher: Teacher) -> Any:
    """The student's UNet: a float32 copy of the teacher's, or the teacher's own with an adapter on it."""
    if config.student.method == "full":
        unet: Any = UNet2DConditionModel.from_config(teacher.unet.config)
        unet.load_state_dict(teacher.unet.state_dict())
        unet.requires_grad_(True)
    else:
        unet = teacher.unet
        teacher.shared = True
        seed = int(generator(config.seed, Purpose.ADAPTER).integers(2**62))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            rank = config.student.rank
            unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS))
        for parameter in trainable(unet):
            parameter.data = parameter.data.float()
    unet.train()
    if config.student.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


def trainable(unet: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


@contextlib.contextmanager
def averaged(ema: EMAModel, unet: torch.nn.Module) -> Iterator[None]:
    """The running average in place of the weights inside."""
    parameters = trainable(unet)
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)
        ema.temp_stored_params = None
