"""Small flow-matching models through ComfyUI's loader, empty latents for them, and random conditioning."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import comfy.model_detection
import comfy.sd
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from trial.small_models.flows import FLOWS


class Prompt(NamedTuple):
    """What a layout's prompts are made of."""

    width: int  # of a token
    pooled: int | None = None  # width of the one vector for the whole prompt
    guidance: float | None = None
    masked: int | None = None  # so many of the last tokens do not count
    others: Mapping[str, tuple[int, ...]] = MappingProxyType({})  # more tensors: what is before the tokens, the width


PROMPTS = {
    "sd3.5": Prompt(4096, pooled=2048),
    "flux": Prompt(4096, pooled=768, guidance=3.5),
    "flux-schnell": Prompt(4096, pooled=768),
    "flux2": Prompt(7680, guidance=4.0),
    "wan2.1": Prompt(4096),
    "wan2.2-5b": Prompt(4096),
    "hunyuan-video": Prompt(4096, pooled=768, guidance=6.0, masked=1),
    "hunyuan-image": Prompt(3584, masked=1),
    "wan2.2-i2v": Prompt(4096),
    "hunyuan-video-1.5": Prompt(3584, others={"conditioning_byt5small": (1, 1472)}),
    "longcat-image": Prompt(3584),
    "ltxav": Prompt(2 * 64, masked=1),
    "ltxv": Prompt(4096, masked=1),
    "krea2": Prompt(2 * 320),
    "lens": Prompt(2 * 256, masked=1),
    "joyimage": Prompt(4096),
    "ace-step-1.5": Prompt(1024, others={"conditioning_lyrics": (1, 1024)}),
    "kandinsky5": Prompt(3584, pooled=768, masked=1),
    "chroma": Prompt(4096, guidance=0.0),
    "lumina2": Prompt(2304, masked=1),
    "z-image": Prompt(2560, masked=1),
    "qwen-image": Prompt(3584, masked=1),
    "auraflow": Prompt(2048),
    "hidream": Prompt(4096, pooled=2048, others={"conditioning_llama3": (1, 2, 4096)}),
    "omnigen2": Prompt(2048, masked=0),
    "mage-flow": Prompt(2560),
    "ernie": Prompt(3072),
}

PICTURES_AS_VIDEOS = ("krea2", "qwen-image", "joyimage")


def load(name: str, file: Path, dtype: torch.dtype = torch.float32) -> ModelPatcher:
    """By the stock loader, which is told the configuration where it could not know it from so small a file."""
    layout = FLOWS[name]
    options = {"dtype": dtype}
    if layout.detected:
        return comfy.sd.load_diffusion_model(str(file), model_options=options)
    known = getattr(comfy.supported_models, layout.kind)(layout.config)
    with mock.patch.object(comfy.model_detection, "model_config_from_unet", return_value=known):
        return comfy.sd.load_diffusion_model(str(file), model_options=options)


def empty_latent(name: str, model: ModelPatcher, batch: int = 1, side: int = 4) -> dict[str, torch.Tensor]:
    """A LATENT of zeros: sound of `side` steps, a picture of side x side places, or two frames of a video.

    Some models of pictures have a video's latent with one frame; LTX-2 has two latents, of a video and of its sound.
    """
    latent = model.model.latent_format
    frames = 1 if name in PICTURES_AS_VIDEOS else 2
    if name == "ltxav":
        from comfy.nested_tensor import NestedTensor

        return {"samples": NestedTensor([torch.zeros(batch, 128, 2, side, side), torch.zeros(batch, 8, side, 16)])}
    size = {1: (side,), 2: (side, side), 3: (frames, side, side)}[latent.latent_dimensions]
    return {"samples": torch.zeros(batch, latent.latent_channels, *size)}


def conditioning(name: str, seed: int, tokens: int = 5) -> list[list[Any]]:
    """CONDITIONING of a random prompt with so many tokens."""
    prompt, random = PROMPTS[name], torch.Generator().manual_seed(seed)
    values: dict[str, Any] = {"pooled_output": None}
    if prompt.pooled:
        values["pooled_output"] = torch.randn(1, prompt.pooled, generator=random)
    if prompt.guidance is not None:
        values["guidance"] = prompt.guidance
    if prompt.masked is not None:
        values["attention_mask"] = (torch.arange(tokens) < tokens - prompt.masked)[None].long()
    for key, (*before, width) in prompt.others.items():
        values[key] = torch.randn(*before, tokens, width, generator=random)
    return [[torch.randn(1, tokens, prompt.width, generator=random), values]]
