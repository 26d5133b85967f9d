"""The names of a MODEL's UNet tensors, from ComfyUI's own maps."""

from collections.abc import Mapping

import comfy.lora
import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...perflow_core.architecture import Shape
from ...perflow_core.delta import MODEL_PREFIX

# What a quantised layer stores beside its weight, by the end of the name.
QUANTISATION = {"comfy_quant", "weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale"}


def stored_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """The UNet's weights, by ComfyUI's names, in the form that they are stored in: of quantised ones packed numbers."""
    stored = model.model_state_dict(MODEL_PREFIX)
    return {key: tensor for key, tensor in stored.items() if key.rpartition(".")[2] not in QUANTISATION}


def unet_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """The UNet's weights, by ComfyUI's names, with the shapes and the precision that they have in computing."""
    return {key: comfy.utils.get_attr(model.model, key) for key in stored_weights(model)}


def unet_shapes(model: ModelPatcher) -> dict[str, Shape]:
    """The shapes of the UNet's weights, by ComfyUI's names."""
    return {key: tuple(tensor.shape) for key, tensor in unet_weights(model).items()}


def diffusers_names(model: ModelPatcher) -> dict[str, str]:
    """Diffusers' name -> ComfyUI's, for the UNet's tensors."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {theirs: MODEL_PREFIX + ours for theirs, ours in names.items()}


def plain_names(model: ModelPatcher, shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Every name that a state dict may use, without prefix -> ComfyUI's, for the tensors that the model has."""
    names = diffusers_names(model) | {key.removeprefix(MODEL_PREFIX): key for key in shapes}
    return {name: key for name, key in names.items() if key in shapes}


def lora_names(model: ModelPatcher) -> dict[str, str]:
    """Every name that a LoRA file may use for a module -> ComfyUI's name of its weight."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    for theirs, ours in diffusers_names(model).items():  # ComfyUI's map has attention only in its ".processor." form
        if theirs.endswith(".weight"):
            names |= {prefix + theirs.removesuffix(".weight"): ours for prefix in ("", "unet.")}
    return names
