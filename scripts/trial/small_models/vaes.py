"""The VAEs of Stable Diffusion (4 channels), SD3 and Flux (16 channels) in their real sizes; Wan's is narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .random_tensors import find_comfyui, generator, random, shapes_of
from .sparse_files import Tensors, save

VAE = "first_stage_model."

_CONFIG: dict[str, Any] = dict(in_channels=3, out_ch=3, double_z=True, resolution=256)
_CONFIG |= dict(ch=128, ch_mult=[1, 2, 4, 4], num_res_blocks=2, attn_resolutions=[], dropout=0.0)

_WAN_CONFIG: dict[str, Any] = dict(dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[])
_WAN_CONFIG |= dict(temperal_downsample=[False, True, True])

_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0", "q": "to_q", "k": "to_k", "v": "to_v"}  # diffusers' names


def make_vae(path: Path, seed: int = 0) -> Path:
    """Write a VAE of Stable Diffusion alone, with the names of diffusers' folder vae (fp16)."""
    return save({_diffusers_name(name): _linear(name, tensor) for name, tensor in vae("", seed).items()}, path)


def make_flux_vae(path: Path, seed: int = 0) -> Path:
    """Write a VAE for latents of 16 channels alone (fp16)."""
    return save(vae("", seed, channels=16), path)


def make_wan_vae(path: Path, seed: int = 0) -> Path:
    """Write the VAE of Wan 2.1, which Qwen-Image has too; ComfyUI reads its width from the file (fp16)."""
    find_comfyui()
    from comfy.ldm.wan.vae import WanVAE

    shapes = shapes_of(lambda: WanVAE(**_WAN_CONFIG))
    return save({name: _of_frames(name, shape, seed).half() for name, shape in shapes.items()}, path)


def _of_frames(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Weights that keep the size of what passes through. Kernels of three frames look at the last one alone."""
    if name.endswith("gamma"):
        return torch.ones(shape)
    if len(shape) == 1:
        return torch.zeros(shape)
    weight = torch.zeros(shape)
    middle = weight.flatten(2)[..., -1] if shape[-1] == 1 else weight.view(*shape[:2], -1, *shape[-2:])[:, :, -1, 1, 1]
    middle.copy_(torch.randn(shape[:2], generator=generator(name, seed)) / shape[1] ** 0.5)
    return weight


def vae(prefix: str, seed: int, channels: int = 4) -> Tensors:
    """A VAE for latents of so many channels, with ComfyUI's names; as in SD3, one of 16 has no quant_conv."""
    find_comfyui()
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = _CONFIG | dict(z_channels=channels)
    shapes = shapes_of(lambda: AutoencoderKL(ddconfig=config, embed_dim=channels), prefix)
    shapes = {name: shape for name, shape in shapes.items() if channels == 4 or "quant" not in name}
    tensors = random(shapes, seed, layers=1)
    tensors[prefix + "decoder.conv_out.weight"] *= 1.5  # strong colours
    return tensors


def _diffusers_name(name: str) -> str:
    from comfy.diffusers_convert import vae_conversion_map

    for ours, theirs in vae_conversion_map:
        name = name.replace(ours, theirs)
    *block, layer, end = name.split(".")
    return ".".join([*block, _ATTENTION[layer], end]) if "attentions" in block else name


def _linear(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The attention's layers are linear in diffusers, and convolutions with a kernel of one in ComfyUI."""
    return tensor[:, :, 0, 0] if ".attn_1." in name and tensor.dim() == 4 else tensor
