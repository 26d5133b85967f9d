"""The trained model of small_model as ComfyUI's loaders take it: widened to SD1.5's layout (fp16).

It is stored narrow. Every file is written in names that are ComfyUI's own or that it maps, with no library but torch
and safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from environment import PACK

from small_model.networks import autoencoder, storage, text_model, widen

from .random_tensors import find_comfyui
from .sparse_files import Tensors, save, zeros
from .unets import SD15_DRAWN, UNET
from .vaes import VAE

STORED = PACK / "small_model" / "weights"
SCALING_FACTOR = 0.18215  # ComfyUI multiplies what an SD1.5 VAE gives by it


def make_trained_checkpoint(path: Path, stored: Path = STORED) -> Path:
    """Write the SD1.5 checkpoint: the teacher's UNet, the text model and the autoencoder."""
    unet, _ = storage.read(stored / "teacher.safetensors")
    parts, _ = storage.read(stored / "autoencoder.safetensors")
    words = text_model.text_model("cond_stage_model.transformer.text_model.")
    text = {name: tensor.half() if tensor.any() else zeros(tensor.shape) for name, tensor in words.items()}
    return save(unet_tensors(unet) | vae_tensors(parts) | text, path)


def make_trained_delta(path: Path, stored: Path = STORED) -> Path:
    """Write the PeRFlow delta, by diffusers' names, with what it says of itself."""
    delta, metadata = storage.read(stored / "delta.safetensors")
    return save({name: widen.widened(name, tensor).half() for name, tensor in delta.items()}, path, metadata)


def unet_tensors(narrow: Tensors) -> Tensors:
    """The wide UNet of a checkpoint, from the narrow one by diffusers' names."""
    find_comfyui()
    from comfy.utils import unet_to_diffusers

    names = unet_to_diffusers(SD15_DRAWN)
    return {UNET + names[name]: widen.widened(name, tensor).half() for name, tensor in narrow.items()}


def vae_tensors(narrow: Mapping[str, torch.Tensor]) -> Tensors:
    """TAESD as a checkpoint's VAE. Its latents are scaled already, so ComfyUI's scaling is taken back."""
    tensors = {"vae_scale": torch.tensor(SCALING_FACTOR), "vae_shift": torch.tensor(0.0)}
    encoder, decoder = autoencoder.pair_of(*storage.networks(narrow, "encoder", "decoder"))
    for part, weights in (("encoder", autoencoder.widen(encoder)), ("decoder", autoencoder.widen(decoder))):
        tensors |= {f"taesd_{part}.{name}": tensor.half() for name, tensor in weights.items()}
    return {VAE + name: tensor for name, tensor in tensors.items()}
