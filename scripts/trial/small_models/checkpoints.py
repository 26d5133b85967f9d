"""Checkpoints: diffusion model, text models and VAE in one file (fp16)."""

from __future__ import annotations

from pathlib import Path

import torch

from .flows import FLOWS, flow
from .mmdit import mmdit
from .sparse_files import Tensors, save, zeros
from .text_models import CLIP_G, CLIP_L, CLIP_L_PROJECTED, openclip_model, text_model
from .unets import REFINER_SMALL, SD15_SMALL, SDXL_SMALL, UNET, Config, unet
from .vaes import VAE, vae


def make_checkpoint(path: Path, seed: int = 0, unet_config: Config = SD15_SMALL) -> Path:
    """Write an SD1.5 checkpoint."""
    text = text_model(CLIP_L, "cond_stage_model.transformer.", seed)
    return save(_below(UNET, unet(unet_config, seed)) | text | vae(VAE, seed), path)


def make_sdxl_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write an SDXL base checkpoint, with CLIP-L and CLIP-G."""
    text = text_model(CLIP_L, "conditioner.embedders.0.transformer.", seed)
    text |= openclip_model(CLIP_G, "conditioner.embedders.1.model.", seed)
    return save(_below(UNET, unet(SDXL_SMALL, seed)) | text | vae(VAE, seed), path)


def make_refiner_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write an SDXL refiner checkpoint, with CLIP-G."""
    text = openclip_model(CLIP_G, "conditioner.embedders.0.model.", seed)
    return save(_below(UNET, unet(REFINER_SMALL, seed)) | text | vae(VAE, seed), path)


def make_sd3_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write an SD3 medium checkpoint with CLIP-L and CLIP-G and without T5, as sd3_medium_incl_clips is."""
    text = text_model(CLIP_L_PROJECTED, "text_encoders.clip_l.transformer.", seed)
    text |= text_model(CLIP_G, "text_encoders.clip_g.transformer.", seed)
    return save(_below(UNET, mmdit(seed)) | text | vae(VAE, seed, channels=16), path)


def make_sd35_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write an SD3.5 checkpoint with CLIP-L alone: CLIP-G and T5 are optional, and each has one size, a large one."""
    config = FLOWS["sd3.5"].config
    transformer = flow("sd3.5", seed)
    transformer["pos_embed"] = zeros(torch.Size([1, config["num_patches"], 64 * config["depth"]]))
    text = text_model(CLIP_L_PROJECTED, "text_encoders.clip_l.transformer.", seed)
    return save(_below(UNET, transformer) | text | vae(VAE, seed, channels=16), path)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}
