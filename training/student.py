"""The student: the whole UNet in float32, or a LoRA on the teacher's."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from perflow_core.training.curriculum import Purpose, generator
from perflow_core.training.starting_delta import Beginning
from perflow_core.weights.lowrank import nearest_of_rank

from .config import Config
from .starting_delta import StartingDelta
from .teacher import Switched, Teacher


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


def begin_with(unet: torch.nn.Module, start: StartingDelta, rank: int, device: torch.device) -> Beginning:
    """Add a delta to a whole student, which may be on another device than the one to compute on.

    With a rank its matrices and convolutions get that rank: small batches leave noise in other directions.
    """
    weights, beginning = unet.state_dict(), Beginning()
    for key, dW in start.differences(device):
        kept = nearest_of_rank(dW, rank) if rank and dW.ndim > 1 else dW
        beginning.add(dW, kept)
        weights[key] += kept.to(weights[key].device)
    return beginning


def begin_adapters_with(unet: torch.nn.Module, start: StartingDelta, rank: int, device: torch.device) -> Beginning:
    """Give each adapter the first directions of its layer's dW; what of its rank that leaves over stays fresh."""
    beginning = Beginning()
    for key, dW in start.differences(device):
        adapter = _adapter(unet, key)
        if adapter is None:
            beginning.add(dW, dW)
            continue
        up, down = beginning.directions(dW, rank)
        r = up.shape[1]
        up_weight, down_weight = (half["default"].weight for half in (adapter.lora_B, adapter.lora_A))
        with torch.no_grad():
            up_weight[:, :r] = up.reshape(len(up), r, *up_weight.shape[2:])
            down_weight[:r] = down
    return beginning


def beside_adapters(unet: torch.nn.Module, start: StartingDelta) -> dict[str, Tensor]:
    """What of a delta no adapter is for, on the CPU in float32, by diffusers' names: of norms, biases, outer layers."""
    return dict(start.differences(torch.device("cpu"), lambda key: _adapter(unet, key) is None))


def switched(unet: torch.nn.Module, differences: Mapping[str, Tensor]) -> Switched:
    """The student's own values of weights that it shares with its teacher, from their differences."""
    weights = []
    for key in differences:
        layer, _, kind = key.rpartition(".")
        module: Any = unet.get_submodule(layer)
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        weights.append(getattr(base, kind).detach())
    return Switched(
        weights,
        [weight.clone() for weight in weights],
        [
            (weight.float() + dW.to(weight.device)).to(weight)
            for weight, dW in zip(weights, differences.values(), strict=True)
        ],
    )


def _adapter(unet: torch.nn.Module, key: str) -> Any:
    """The layer of a weight where it has an adapter for it, else None."""
    layer, _, kind = key.rpartition(".")
    module = unet.get_submodule(layer)
    return module if kind == "weight" and isinstance(module, BaseTunerLayer) else None


def trainable(unet: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]
