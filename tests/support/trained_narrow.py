"""The trained small model as it is stored: narrow, in ComfyUI's own classes, quicker than in SD1.5's layout."""

import comfy.supported_models
import torch
from comfy.model_management import get_torch_device
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy.utils import unet_to_diffusers
from narrow_model import NARROW
from trial import small_text_models
from trial.small_models.trained import STORED

from small_model.networks import storage, text_model


def perflow_unet() -> ModelPatcher:
    """The teacher with the delta added, without PeRFlow's sampling; its prediction type is ddim_eps."""
    teacher, _ = storage.read(STORED / "teacher.safetensors")
    delta, _ = storage.read(STORED / "delta.safetensors")
    names = unet_to_diffusers(NARROW)
    config = comfy.supported_models.SD15(NARROW | {"dtype": torch.float32})
    model = config.get_model({}, "", device="cpu")
    merged = {names[key]: weight.float() + delta[key].float() for key, weight in teacher.items()}
    model.diffusion_model.load_state_dict(merged)
    model.diffusion_model.requires_grad_(False)
    return ModelPatcher(model, get_torch_device(), torch.device("cpu"))


def clip() -> CLIP:
    """Its text model, whose layers add nothing."""
    made = small_text_models.clip("SD1.5")
    model = made.cond_stage_model.clip_l.transformer.text_model
    words, positions = text_model.embeddings()
    for name, weight in model.encoder.named_parameters():
        if "norm" not in name:
            weight.data.zero_()
    model.embeddings.token_embedding.weight.data = words
    model.embeddings.position_embedding.weight.data = positions
    model.final_layer_norm.weight.data.fill_(1)
    model.final_layer_norm.bias.data.zero_()
    return made
