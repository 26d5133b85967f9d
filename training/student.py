"""The student: the whole UNet in float32, or a LoRA on the teacher's."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perflow_core.training.curriculum import Purpose, generator
from perflow_core.weights.lowrank import nearest_of_rank

from .config import Config, StudentConfig
from .stopping import TrainingError
from .teacher import Teacher


def make(config: Config, teacher: Teacher) -> Any:
    """The student's UNet: a float32 copy of the teacher's, or the teacher's own with an adapter on it."""
    if config.student.method == "full":
        unet: Any = copy.deepcopy(teacher.unet).float()  # made anew, all weights would be drawn at random first
        unet.requires_grad_(True)
    else:
        unet = teacher.unet
        teacher.shared = True
        seed = int(generator(config.seed, Purpose.ADAPTER).integers(2**62))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            add_adapter(unet, config.student.rank, teacher.lora_targets)
        for parameter in trainable(unet):
            parameter.data = parameter.data.float()
        for module in unet.modules():
            if isinstance(module, BaseTunerLayer):
                # Autocast does it, and keeps one copy for the backward pass, not two.
                module.cast_input_dtype_enabled = False
    unet.train()
    if config.student.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet


def add_adapter(unet: Any, rank: int, targets: list[str]) -> None:
    """A LoRA of this rank on layers of a frozen diffusers network; targets: the ends of their names."""
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))


def begin_with(unet: torch.nn.Module, config: StudentConfig, prediction_type: str) -> None:
    """Add config.delta to the whole student, where one is given.

    With config.delta_rank its matrices and convolutions get that rank: small batches leave noise in other directions.
    Raises TrainingError where the delta does not fit, or has another prediction_type or other windows.
    """
    if not config.delta:
        return
    weights = unet.state_dict()
    expected = {"prediction_type": prediction_type, "windows": str(config.windows)}
    for key, dW in _fitting_delta(config.delta, weights, expected).items():
        few = config.delta_rank and dW.ndim > 1
        weights[key] += nearest_of_rank(dW, config.delta_rank) if few else dW


def _fitting_delta(path: str, weights: Mapping[str, Tensor], expected: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors (float32) of a full delta with the weights' names and shapes, diffusers', of the expected kind."""
    try:
        with safe_open(path, framework="pt") as file:
            delta = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"student.delta: {path} cannot be read ({error}): give the path of a delta.") from error
    found, own = ({key: tensor.shape for key, tensor in tensors.items()} for tensors in (delta, weights))
    apart = sorted(key for key in found.keys() | own.keys() if found.get(key) != own.get(key))
    if apart:
        raise TrainingError(
            f"student.delta: {path} differs from the student in {len(apart)} tensors, such as {apart[0]}, expected a "
            "full delta of the teacher's kind with diffusers' names: choose another one or leave it out."
        )
    for name, value in expected.items():
        if metadata.get(name, value) != value:
            raise TrainingError(
                f"student.delta: {path} has {name} {metadata[name]}, expected {value}: set student.{name} to what the "
                "file has."
            )
    return {key: dW.float() for key, dW in delta.items()}


def trainable(unet: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]
