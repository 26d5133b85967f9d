"""Checkpoints of real size with random weights, made on the GPU, and a delta for each."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import measuring
import torch
from safetensors.torch import save_file
from torch import Tensor
from trial import small_models
from trial.small_models.text_models import CLIP_G, CLIP_L, openclip_model, text_model
from trial.small_models.unets import SDXL_SMALL, UNET
from trial.small_models.vaes import VAE, vae
from trial.small_models.weights import shapes_of

SDXL = dict(
    channel_mult=[1, 2, 4], transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], transformer_depth_middle=10
)
FULL: dict[str, dict[str, Any]] = {"SD1.5": small_models.SD15_SMALL | measuring.SD15, "SDXL": SDXL_SMALL | SDXL}
SMALL: dict[str, dict[str, Any]] = {"SD1.5": small_models.SD15_TINY, "SDXL": SDXL_SMALL}
LAST_OF_A_BLOCK = re.compile(r"(proj_out|out_layers\.3|to_out\.0|net\.2|conv2)\.weight$")
DELTA = 0.05  # of a weight's size


def checkpoint_name(size: str) -> str:
    return f"{size}.safetensors"


def delta_name(size: str) -> str:
    return f"{size}-delta.safetensors"


def lora_name(size: str) -> str:
    return f"{size}-lora.safetensors"


def make_files(folder: Path, size: str, small: bool, device: torch.device) -> dict[str, float]:
    """A checkpoint (fp16) and a delta with ComfyUI's names for a UNet; returns the numbers of weights in millions."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = (SMALL if small else FULL)[size]
    unet = {name: fill(name, shape, device) for name, shape in shapes_of(lambda: UNetModel(**config)).items()}
    delta = {name: change(weight, device) for name, weight in unet.items()}
    decoder = {name: fill(name, tensor.shape, device) for name, tensor in vae(VAE, 0).items()}
    texts = {name: tensor.contiguous() for name, tensor in text_models(size).items()}
    save_file(delta, folder / delta_name(size))
    save_file({UNET + name: weight for name, weight in unet.items()} | decoder | texts, folder / checkpoint_name(size))
    if size == "SD1.5":
        small_models.make_lora(folder / lora_name(size), folder / checkpoint_name(size))
    return {name: millions(part) for name, part in {"UNet": unet, "text": texts, "VAE": decoder}.items()}


def text_models(size: str) -> dict[str, Tensor]:
    if size == "SD1.5":
        return text_model(CLIP_L, "cond_stage_model.transformer.", 0)
    large = openclip_model(CLIP_G, "conditioner.embedders.1.model.", 0)
    return text_model(CLIP_L, "conditioner.embedders.0.transformer.", 0) | large


def fill(name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """Norms of one, biases of zero, and weights that keep the size of what passes through."""
    if len(shape) < 2:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.float16)
    gain = 0.3 if LAST_OF_A_BLOCK.search(name) else 1.0
    return noise(shape, device).mul_(gain / math.sqrt(math.prod(shape[1:]))).cpu()


def change(weight: Tensor, device: torch.device) -> Tensor:
    """Random numbers, a twentieth as large as the weight."""
    size = 1.0 / math.sqrt(weight[0].numel()) if weight.ndim > 1 else 0.02
    return noise(weight.shape, device).mul_(DELTA * size).cpu()


def noise(shape: torch.Size, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device, dtype=torch.float16)


def millions(tensors: Mapping[str, Tensor]) -> float:
    return sum(tensor.numel() for tensor in tensors.values()) / 1e6
