"""The narrow model of small_model with random weights, stored as the trained one is; its UNet in ComfyUI's class."""

from pathlib import Path

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ops import disable_weight_init
from comfy.utils import unet_to_diffusers
from trial.small_models.unets import SD15_DRAWN

from small_model.networks import autoencoder, storage
from small_model.networks.unet import CHANNELS

NARROW = SD15_DRAWN | dict(model_channels=CHANNELS)


def unet(config, tensors=None) -> UNetModel:
    """ComfyUI's UNet of that configuration in float32; without tensors, by diffusers' names, a random one."""
    model = UNetModel(**config, dtype=torch.float32, operations=disable_weight_init)
    if tensors is None:
        random = torch.Generator().manual_seed(0)
        for parameter in model.parameters():  # norms vary as well, so that mixed up channels show
            size = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.data = size * torch.randn(parameter.shape, generator=random) + (parameter.ndim == 1)
    else:
        names = unet_to_diffusers(config)
        model.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
    return model.eval().requires_grad_(False)


def diffusers_names(model: UNetModel) -> dict[str, torch.Tensor]:
    theirs = {ours: name for name, ours in unet_to_diffusers(NARROW).items()}
    return {theirs[name]: tensor for name, tensor in model.state_dict().items()}


def store(folder: Path) -> Path:
    """Write the three files as small_model/trainers/pack.py does."""
    torch.manual_seed(0)
    teacher = diffusers_names(unet(NARROW))
    delta = {name: 0.1 * tensor.std() * torch.randn_like(tensor) for name, tensor in teacher.items()}
    both = torch.nn.ModuleDict({"encoder": autoencoder.Encoder(), "decoder": autoencoder.Decoder()})
    storage.write(teacher, folder / "teacher.safetensors", 16)
    storage.write(delta, folder / "delta.safetensors", 8, {"prediction_type": "diff_eps", "windows": "4"})
    storage.write(both.state_dict(), folder / "autoencoder.safetensors", 16)
    return folder
