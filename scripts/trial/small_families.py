"""SD1.5, SD2.x and SDXL, narrow: ComfyUI's own classes with random weights, and their real tokenizers."""

from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.text_encoders.sd2_clip
import torch
from comfy.model_patcher import ModelPatcher

from trial.small_models.unets import SD15_DRAWN, Config

NARROW = SD15_DRAWN | dict(model_channels=32)  # attention at a half and a quarter of the latent
UNETS: dict[str, tuple[type, Config]] = {
    "SD1.5": (comfy.supported_models.SD15, NARROW | dict(num_heads=2)),
    "SD2.x": (
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
# SD2.x and SDXL read the last layer but one.
THREE_LAYERS = {f"clip_{which}_model_config": {"num_hidden_layers": 3} for which in "lhg"}
TEXT_MODELS = {
    "SD1.5": (comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
    "SD2.x": (comfy.text_encoders.sd2_clip.SD2Tokenizer, comfy.text_encoders.sd2_clip.SD2ClipModel),
    "SDXL": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
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


def clip(family: str, embeddings: Path | None = None) -> comfy.sd.CLIP:
    """The family's own tokenizer and classes, with random weights."""
    tokenizer, model = TEXT_MODELS[family]
    target: Any = comfy.supported_models_base.ClipTarget(tokenizer, model)
    options = THREE_LAYERS | {"dtype": torch.float32}
    made = comfy.sd.CLIP(target, embedding_directory=embeddings and str(embeddings), model_options=options)
    random = torch.Generator().manual_seed(0)
    for name, weight in made.cond_stage_model.named_parameters():
        ones = "norm" in name and name.endswith("weight")
        size = 1.0 if weight.ndim < 2 or "embedding" in name else weight.shape[-1] ** -0.5
        weight.data = torch.ones_like(weight) if ones else size * torch.randn(weight.shape, generator=random)
    return made
