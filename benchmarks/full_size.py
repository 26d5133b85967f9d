"""SD1.5 and SDXL at their real sizes: what ComfyUI's configurations need, and files of random weights."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What the small configuration of trial.small_models lacks of the real size.
SDXL: dict[str, Any] = dict(
    channel_mult=[1, 2, 4],
    transformer_depth=[0, 0, 2, 2, 10, 10],
    transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
    transformer_depth_middle=10,
)
LAST_OF_A_BLOCK = re.compile(r"(proj_out|out_layers\.3|to_out\.0|net\.2|conv2)\.weight$")
DELTA = 0.05  # of a weight's size
SPECTRUM = 256  # terms of the made-up difference: singular values 1, 1/2, 1/3 ... and a floor
FLOOR = 0.02  # of the first singular value


def sd15(small: bool) -> dict[str, Any]:
    """ComfyUI's configuration of SD1.5's UNet, of its real size or small."""
    from trial import small_models
    from trial.small_models.unets import SD15_LAYOUT

    return small_models.SD15_SMALL | ({} if small else SD15_LAYOUT)


def file_name(size: str, kind: Literal["checkpoint", "delta", "lora"]) -> str:
    return f"{size}-{kind}.safetensors"


def make_files(folder: Path, size: str, small: bool, device: torch.device) -> None:
    """A checkpoint (fp16) of "SD1.5" or "SDXL" made on the device, and a delta with ComfyUI's names for its UNet."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from safetensors.torch import save_file
    from trial import small_models
    from trial.small_models import text_models, vaes
    from trial.small_models.random_tensors import shapes_of

    if size == "SD1.5":
        config = small_models.SD15_TINY if small else sd15(small)
        texts = text_models.text_model(text_models.CLIP_L, "cond_stage_model.transformer.", 0)
    else:
        config = small_models.SDXL_SMALL | ({} if small else SDXL)
        texts = text_models.text_model(text_models.CLIP_L, "conditioner.embedders.0.transformer.", 0)
        texts |= text_models.openclip_model(text_models.CLIP_G, "conditioner.embedders.1.model.", 0)
    unet = {name: fill(name, shape, device) for name, shape in shapes_of(lambda: UNetModel(**config)).items()}
    rest = {name: fill(name, tensor.shape, device) for name, tensor in vaes.vae(vaes.VAE, 0).items()}
    rest |= {name: tensor.contiguous() for name, tensor in texts.items()}
    save_file(
        {small_models.UNET + name: weight for name, weight in unet.items()} | rest,
        folder / file_name(size, "checkpoint"),
    )
    save_file({name: change(weight, device) for name, weight in unet.items()}, folder / file_name(size, "delta"))
    if size == "SD1.5":
        small_models.make_lora(folder / file_name(size, "lora"), folder / file_name(size, "checkpoint"))


def fill(name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """Norms of one, biases of zero, and weights that keep the size of what passes through."""
    import torch

    if len(shape) < 2:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.float16)
    gain = 0.3 if LAST_OF_A_BLOCK.search(name) else 1.0
    noise = torch.randn(shape, device=device)  # not in fp16, which takes ten times as long on a CPU
    return noise.mul_(gain / math.sqrt(math.prod(shape[1:]))).half().cpu()


def change(weight: Tensor, device: torch.device) -> Tensor:
    """Random numbers, a twentieth as large as the weight."""
    import torch

    size = 1.0 / math.sqrt(weight[0].numel()) if weight.ndim > 1 else 0.02
    return torch.randn(weight.shape, device=device).mul_(DELTA * size).half().cpu()


def make_difference(folder: Path, small: bool) -> None:
    """SD1.5's UNets base and perflow, and delta = perflow - base, all fp16 with ComfyUI's names: three files."""
    import torch
    from safetensors.torch import load_file, save_file
    from trial import small_models

    tensors = load_file(small_models.make_unet(folder / "base.safetensors", sd15(small)))
    torch.manual_seed(0)
    delta = {}
    for name, weight in tensors.items():
        dW = matrix_with_spectrum(*weight.flatten(1).shape) if weight.ndim > 1 else torch.randn(weight.shape)
        size = max(float(weight.float().square().mean().sqrt()), 0.02) if weight.ndim > 1 else 0.02
        dW *= DELTA * size * math.sqrt(dW.numel()) / float(dW.norm())
        delta[name] = dW.view(weight.shape).half()
        tensors[name] = (weight.float() + delta[name].float()).half()
    save_file(tensors, folder / "perflow.safetensors")
    save_file(delta, folder / "delta.safetensors")


def matrix_with_spectrum(rows: int, columns: int) -> Tensor:
    """A matrix with singular values near 1, 1/2, 1/3 ... and a flat floor, without an SVD."""
    import torch

    terms = min(SPECTRUM, rows, columns)
    left = torch.randn(rows, terms) / (math.sqrt(rows) * torch.arange(1, terms + 1))
    right = torch.randn(terms, columns) / math.sqrt(columns)
    floor = torch.randn(rows, columns).mul_(FLOOR / math.sqrt(max(rows, columns)))
    return torch.addmm(floor, left, right)
