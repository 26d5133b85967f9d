"""The trained models of small_model as ComfyUI's loaders take them (fp16): SD1.5's layout, widened, and SD3.5's.

Every file is written in names that are ComfyUI's own or that it maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from environment import PACK, UserError

from small_model.networks import autoencoder, flow_transformer, storage, text_model, widen

from .random_tensors import find_comfyui
from .sparse_files import Tensors, save, zeros
from .unets import SD15_DRAWN, UNET
from .vaes import VAE

STORED = PACK / "small_model" / "weights"
SCALING_FACTOR = 0.18215  # ComfyUI multiplies what an SD1.5 VAE gives by it
SD3_SCALING = 1.5305, 0.0609  # of SD3 it is (z - shift) scale
SD3_WIDTHS = {"context_embedder.weight": 4096, "time_text_embed.text_embedder.linear_1.weight": 2048}


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


def make_flow_checkpoint(path: Path, stored: Path = STORED) -> Path:
    """Write the SD3.5 checkpoint of the stored flow model."""
    transformer, _ = storage.read(present(stored / "flow_teacher.safetensors"))
    parts, _ = storage.read(present(stored / "flow_autoencoder.safetensors"))
    return flow_checkpoint(transformer, parts, path)


def make_flow_delta(path: Path, stored: Path = STORED) -> Path:
    """Write its PeRFlow delta, as Train PeRFlow Delta named it, with what it says of itself."""
    delta, metadata = storage.read(present(stored / "flow_delta.safetensors"))
    return save({name: tensor.half() for name, tensor in delta.items()}, path, metadata)


def present(file: Path) -> Path:
    """Raises UserError for what is not stored yet."""
    if not file.is_file():
        raise UserError(f"There is no {file}: train the flow model and store it, as small_model/README.md says.")
    return file


def flow_checkpoint(transformer: Tensors, autoencoder_parts: Tensors, path: Path) -> Path:
    """Write the SD3.5 checkpoint: the transformer by diffusers' names, the text model as CLIP-L, the autoencoder."""
    words = text_model.text_model("text_encoders.clip_l.transformer.text_model.")
    text = {name: tensor.half() if tensor.any() else zeros(tensor.shape) for name, tensor in words.items()}
    vae = vae_tensors(autoencoder_parts, *SD3_SCALING)
    return save(flow_tensors(transformer) | vae | text, path)


def flow_tensors(transformer: Tensors) -> Tensors:
    """SD3's names, with zeros for what CLIP-G and T5 would say."""
    find_comfyui()
    from comfy.model_detection import convert_diffusers_mmdit

    padded = {"pos_embed.pos_embed": flow_transformer.flow_transformer().pos_embed.pos_embed} | dict(transformer)
    for name, width in SD3_WIDTHS.items():
        padded[name] = torch.nn.functional.pad(padded[name], (0, width - padded[name].shape[1]))
    tensors: Tensors = convert_diffusers_mmdit({name: tensor.half() for name, tensor in padded.items()}, UNET)
    return tensors


def unet_tensors(narrow: Tensors) -> Tensors:
    """The wide UNet of a checkpoint, from the narrow one by diffusers' names."""
    find_comfyui()
    from comfy.utils import unet_to_diffusers

    names = unet_to_diffusers(SD15_DRAWN)
    return {UNET + names[name]: widen.widened(name, tensor).half() for name, tensor in narrow.items()}


def vae_tensors(narrow: Mapping[str, torch.Tensor], scale: float = SCALING_FACTOR, shift: float = 0.0) -> Tensors:
    """TAESD as a checkpoint's VAE. Its latents are scaled already, so ComfyUI's scaling is taken back."""
    tensors = {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)}
    encoder, decoder = autoencoder.pair_of(*storage.networks(narrow, "encoder", "decoder"))
    for part, weights in (("encoder", autoencoder.widen(encoder)), ("decoder", autoencoder.widen(decoder))):
        tensors |= {f"taesd_{part}.{name}": tensor.half() for name, tensor in weights.items()}
    return {VAE + name: tensor for name, tensor in tensors.items()}
