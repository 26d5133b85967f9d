"""The text models of SD1.5, SD2.x and SDXL: ComfyUI's own classes, few layers, random weights, real tokenizers."""

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models_base
import comfy.text_encoders.sd2_clip
import torch

# SD2.x and SDXL read the last layer but one.
THREE_LAYERS = {f"clip_{which}_model_config": {"num_hidden_layers": 3} for which in "lhg"}
TEXT_MODELS = {
    "SD1.5": (comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
    "SD2.x": (comfy.text_encoders.sd2_clip.SD2Tokenizer, comfy.text_encoders.sd2_clip.SD2ClipModel),
    "SDXL": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
}


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
