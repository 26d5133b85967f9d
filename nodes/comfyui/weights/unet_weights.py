"""The weights of a MODEL's UNet: their layout, by ComfyUI's own maps of names, and each with its patches."""

from collections.abc import Iterator
from pathlib import Path

import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
from torch import Tensor, nn

from ....perflow_core.weights.unet_layout import UNetLayout

MODEL_PREFIX = "diffusion_model."
_ROOT = MODEL_PREFIX.removesuffix(".")


def layout_of(model: ModelPatcher) -> UNetLayout:
    """The UNet by ComfyUI's names; what quantised layers store beside their weights is left out."""
    weights = unet_weights(model)
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    by_diffusers = {theirs: MODEL_PREFIX + ours for theirs, ours in names.items()}
    by_name = by_diffusers | {key.removeprefix(MODEL_PREFIX): key for key in weights}
    computing = model.model.get_dtype_inference()
    return UNetLayout(
        shapes={key: tuple(weight.shape) for key, weight in weights.items()},
        dtypes={key: weight.dtype if weight.is_floating_point() else computing for key, weight in weights.items()},
        names={name: key for name, key in by_name.items() if key in weights},
        modules={name: key for name, key in _lora_names(model, by_diffusers).items() if key in weights},
        architecture=type(model.model).__name__,
    )


def unet_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """The UNet's weights, by ComfyUI's names, with the shapes and the precision that they have in computing.

    A state dict also has keys that are no tensors of the model (scales, notes of a format); patches go by its keys.
    """
    patched_by_key = model.model_state_dict(MODEL_PREFIX).keys()
    return {key: tensor for key, tensor in _tensors(model.model.diffusion_model) if key in patched_by_key}


def stored_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """The same in the form that they are stored in: of quantised ones packed numbers."""
    stored = model.model_state_dict(MODEL_PREFIX)
    return {key: stored[key] for key in unet_weights(model)}


def check_can_be_patched(model: ModelPatcher) -> None:
    """Raises ValueError for a weight in a form that neither ComfyUI nor the model's loader can add to."""
    if type(model).patch_weight_to_device is not ModelPatcher.patch_weight_to_device:
        return  # a loader whose weights are packed in its own way patches them in its own way
    for key, weight in unet_weights(model).items():
        if not weight.is_floating_point() and get_key_weight(model.model, key)[2] is None:
            raise ValueError(
                f"The model's weight {key} is stored as {weight.dtype}, to which nothing can be added, expected fp16, "
                "bf16, fp32, fp8 or another format that ComfyUI's own loaders quantise with: load the model in one of "
                "those."
            )


def patched_weight(model: ModelPatcher, key: str, device: torch.device) -> Tensor:
    """A weight with the MODEL's patches, whatever its module is patched with now; float32, as in computing.

    What ModelPatcher.get_key_patches lists, for one weight: all at once it stops at the keys of quantised layers.
    """
    weight, _, convert = get_key_weight(model.model, key)
    if key in model.backup:
        weight = model.backup[key].weight
    if key in model.hook_backup:
        weight = model.hook_backup[key][0]
    weight = weight.detach()
    if weight.is_floating_point():
        weight = comfy.model_management.cast_to_device(weight, device, torch.float32, copy=True)
        if convert is not None:
            weight = convert(weight, inplace=True).to(torch.float32)
    else:
        weight = _unpacked(model, key, weight.to(device, copy=True))
    return comfy.lora.calculate_weight(model.patches.get(key, []), weight.as_subclass(Tensor), key)


def layers(model: ModelPatcher) -> Iterator[tuple[str, nn.Module]]:
    """The UNet's linear layers and convolutions, of any dimensions and quantised ones too, by their names in ComfyUI.

    They are known by their weights, as quantised ones are of classes of their own.
    """
    for name, layer in model.model.diffusion_model.named_modules(prefix=_ROOT, remove_duplicate=False):
        weight = layer._parameters.get("weight")
        if weight is None:
            continue
        linear = hasattr(layer, "in_features") and len(weight.shape) == 2
        convolution = hasattr(layer, "in_channels") and 3 <= len(weight.shape) <= 5 and not layer.transposed
        if linear or convolution:
            yield name, layer


def _unpacked(model: ModelPatcher, key: str, weight: Tensor) -> Tensor:
    """Packed numbers of another pack's loader, read by their layer; float32. Changes `weight`, so give it a copy.

    Raises ValueError where the layer offers no way to read them.
    """
    layer = comfy.utils.get_attr(model.model, key.rpartition(".")[0])
    if not hasattr(layer, "get_weight"):
        raise ValueError(
            f"The model's weight {key} is stored as {weight.dtype}, and its loader offers no way to read it, expected "
            "fp16, bf16, fp32, fp8, GGUF or another format that ComfyUI's own loaders quantise with: load the model in "
            "one of those."
        )
    weight.patches = []  # type: ignore[attr-defined]  # ComfyUI-GGUF keeps there what the loaded MODEL adds
    return layer.get_weight(weight, torch.float32)


def _tensors(unet: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a delta may change, by name: of the layers that ComfyUI casts `weight` and `bias`, the only ones that it
    patches in every memory mode (quantised ones have parameters beside), of all others every tensor.
    """
    for name, module in unet.named_modules(prefix=_ROOT, remove_duplicate=False):
        cast = hasattr(module, "comfy_cast_weights")
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        yield from ((f"{name}.{own}", tensor) for own, tensor in tensors if not cast or own in ("weight", "bias"))


def source_name(model: ModelPatcher) -> str:
    """The file a MODEL was loaded from, where its loader left a note of it, else the name of its class."""
    factory = getattr(model, "cached_patcher_init", None)
    paths = [part for part in (factory[1] if factory else ()) if isinstance(part, str)]
    return Path(paths[0]).name if paths else type(model.model).__name__


def _lora_names(model: ModelPatcher, by_diffusers: dict[str, str]) -> dict[str, str]:
    """Every name that a LoRA file may use for a layer -> ComfyUI's name of its weight; by_diffusers: of all tensors."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    for theirs, ours in by_diffusers.items():  # ComfyUI's map has attention only in its ".processor." form
        if theirs.endswith(".weight"):
            names |= {prefix + theirs.removesuffix(".weight"): ours for prefix in ("", "unet.")}
    return names
