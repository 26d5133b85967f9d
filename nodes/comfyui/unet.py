"""A MODEL's UNet, described once for all who ask, by ComfyUI's own maps of names."""

from pathlib import Path

import comfy.lora
import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...perflow_core.architecture import UNet

MODEL_PREFIX = "diffusion_model."
# What a quantised layer stores beside its weight, by the end of the name.
QUANTISATION = {"comfy_quant", "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale"}


def describe(model: ModelPatcher) -> UNet:
    """The UNet by ComfyUI's names; what quantised layers store beside their weights is left out."""
    weights = unet_weights(model)
    by_diffusers = _diffusers_names(model)
    return UNet(
        shapes={key: tuple(weight.shape) for key, weight in weights.items()},
        dtypes={key: weight.dtype for key, weight in weights.items()},
        names={
            name: key
            for name, key in (by_diffusers | {key.removeprefix(MODEL_PREFIX): key for key in weights}).items()
            if key in weights
        },
        modules={name: key for name, key in _lora_names(model, by_diffusers).items() if key in weights},
    )


def stored_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """The UNet's weights, by ComfyUI's names, in the form that they are stored in: of quantised ones packed numbers."""
    stored = model.model_state_dict(MODEL_PREFIX)
    return {key: tensor for key, tensor in stored.items() if key.rpartition(".")[2] not in QUANTISATION}


def unet_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """The UNet's weights, by ComfyUI's names, with the shapes and the precision that they have in computing."""
    return {key: comfy.utils.get_attr(model.model, key) for key in stored_weights(model)}


def source_name(model: ModelPatcher) -> str:
    """The file a MODEL was loaded from, where its loader left a note of it, else the name of its class."""
    factory = getattr(model, "cached_patcher_init", None)
    paths = [part for part in (factory[1] if factory else ()) if isinstance(part, str)]
    return Path(paths[0]).name if paths else type(model.model).__name__


def _diffusers_names(model: ModelPatcher) -> dict[str, str]:
    """Diffusers' name -> ComfyUI's, for the UNet's tensors."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {theirs: MODEL_PREFIX + ours for theirs, ours in names.items()}


def _lora_names(model: ModelPatcher, by_diffusers: dict[str, str]) -> dict[str, str]:
    """Every name that a LoRA file may use for a layer -> ComfyUI's name of its weight."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    for theirs, ours in by_diffusers.items():  # ComfyUI's map has attention only in its ".processor." form
        if theirs.endswith(".weight"):
            names |= {prefix + theirs.removesuffix(".weight"): ours for prefix in ("", "unet.")}
    return names
