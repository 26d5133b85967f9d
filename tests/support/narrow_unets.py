"""The UNets of SD1.5, SD2.x and SDXL, narrow, in ComfyUI's own classes with random weights."""

import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from trial.small_models.unets import SD15_DRAWN, Config

NARROW = SD15_DRAWN | dict(model_channels=32)  # attention at a half and a quarter of the latent
UNETS: dict[str, tuple[type, Config]] = {
    "SD1.5": (comfy.supported_models.SD15, NARROW | dict(num_heads=2, channel_mult=[1, 1, 1])),
    "SD2.x": (  # ComfyUI gives it and SDXL heads of 64 channels
        comfy.supported_models.SD20,
        NARROW | dict(context_dim=1024, use_linear_in_transformer=True, num_heads=-1, num_head_channels=32),
    ),
    "SDXL": (
        comfy.supported_models.SDXL,
        NARROW
        | dict(context_dim=2048, use_linear_in_transformer=True, num_heads=-1, num_head_channels=32)
        | dict(transformer_depth=[0, 1, 2], transformer_depth_output=[0, 0, 1, 1, 2, 2], transformer_depth_middle=2)
        | dict(num_classes="sequential", adm_in_channels=2816),
    ),
}


def unet(family: str, dtype: torch.dtype = torch.float32) -> ModelPatcher:
    """A MODEL with random weights."""
    kind, layout = UNETS[family]
    config = kind(layout | dict(dtype=dtype))
    model = config.get_model({}, "", device="cpu")
    random = torch.Generator().manual_seed(0)
    for parameter in model.diffusion_model.parameters():
        size = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        value = size * torch.randn(parameter.shape, generator=random) + (parameter.ndim == 1)
        parameter.data = value.to(dtype)
    model.diffusion_model.requires_grad_(False)
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
