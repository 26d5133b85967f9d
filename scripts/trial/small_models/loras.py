"""LoRAs in the namings that published files use: kohya's for UNets and text models, diffusers' for SD3."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from perflow_core.weights.lora_file import lora_name, lora_pair
from perflow_core.weights.pcm_loras import LAYERS as PCM_LAYERS

from .mmdit import lora_layers
from .random_tensors import generator
from .sparse_files import Tensors, save
from .text_models import CLIP_L, text_model_shapes
from .unets import diffusers_names, read_unet

# What is common in LoRAs of pictures: the linear layers of the transformer blocks.
_BLOCKS = re.compile(r"_transformer_blocks_.*(?<!norm[123])$")
_TEXT = re.compile(r"\.(self_attn\.(?:q|k|v|out)_proj|mlp\.fc[12])\.weight$")


def make_lora(
    path: Path, checkpoint: Path, rank: int = 4, seed: int = 2, scale: float = 0.3, text: bool = False
) -> Path:
    """Write a kohya-style LoRA over the attention and feed-forward layers of a checkpoint's UNet (fp16).

    With `text` it has layers for the text model CLIP-L too.
    """
    lora = _unet_lora(checkpoint, _BLOCKS, rank, seed, scale)
    if text:
        for name, shape in text_model_shapes(CLIP_L).items():
            if _TEXT.search(name):
                key = "lora_te_" + name.removesuffix(".weight").replace(".", "_")
                lora |= _kohya(key, shape, rank, seed, 0.1 * scale)
    return save(lora, path)


def make_pcm_lora(path: Path, checkpoint: Path, rank: int = 4, seed: int = 6, scale: float = 0.1) -> Path:
    """Write a LoRA over the layers of a checkpoint's UNet that PCM's *_converted files have, in their naming (fp16)."""
    return save(_unet_lora(checkpoint, PCM_LAYERS, rank, seed, scale), path)


def make_sd3_lora(path: Path, rank: int = 4, seed: int = 7, scale: float = 0.1) -> Path:
    """Write a LoRA for the small SD3 model as PCM's training saves it with diffusers: "transformer.", no alpha."""
    lora: Tensors = {}
    for layer, (out, inner) in lora_layers().items():
        up, down = _factors(layer, (out, inner), rank, seed, scale)
        lora |= {f"transformer.{layer}.lora_B.weight": up, f"transformer.{layer}.lora_A.weight": down}
    return save(lora, path)


def _unet_lora(checkpoint: Path, layers: re.Pattern[str], rank: int, seed: int, scale: float) -> Tensors:
    unet = read_unet(checkpoint)
    lora: Tensors = {}
    for name, diffusers_name in diffusers_names(unet).items():
        key = lora_name(diffusers_name.removesuffix(".weight"))
        if diffusers_name.endswith(".weight") and layers.search(key):
            lora |= _kohya(key, unet[name].shape, rank, seed, scale)
    return lora


def _kohya(key: str, shape: Iterable[int], rank: int, seed: int, scale: float) -> Tensors:
    up, down = _factors(key, shape, rank, seed, scale)
    return lora_pair(key, up, down)


def _factors(key: str, shape: Iterable[int], rank: int, seed: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Up and down (fp16): `down` has the kernel of a convolution, `up` a kernel of one."""
    out, inner, *kernel = shape
    up = torch.randn(out, rank, *[1] * len(kernel), generator=generator(key + "up", seed))
    down = torch.randn(rank, inner, *kernel, generator=generator(key + "down", seed))
    size = math.prod((inner, *kernel))
    return (up * scale / math.sqrt(rank)).half(), (down / math.sqrt(size)).half()
