"""A delta file as ComfyUI's patches for a MODEL: read, fitted to its UNet, and the tensors as they lie in the file."""

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from torch import Tensor

from ....perflow_core.errors import Problem, shown
from ....perflow_core.weights.delta_changes import (
    Change,
    Factors,
    check_all_known,
    check_all_used,
    group_by_module,
    plain_changes,
)
from ....perflow_core.weights.delta_file import check_base, check_is_delta
from ....perflow_core.weights.delta_fit import DeltaFit, check_numbers, fit
from ....perflow_core.weights.unet_layout import Shape, UNetLayout
from ....perflow_core.weights.weights_file import WeightsFile, WeightsFileError, by_weight, inspect
from .. import folders
from ..sampling.base_sampling import prediction_of
from .unet_weights import check_can_be_patched, layout_of

# What whole differences are called in LoRA files; of two for one weight ComfyUI takes the first.
WHOLE_WEIGHT, WHOLE_BIAS = (".diff", ".w_norm"), (".diff_b", ".b_norm")

Patch = Any  # what ModelPatcher.add_patches takes for a weight


def fitting_delta(model: ModelPatcher, path: str, partial: bool, strength: float) -> DeltaFit:
    """What of a delta file fits a MODEL's UNet. Raises WeightsFileError for a file that does not.

    safetensors checks the header; the tensors are mapped by ComfyUI's own loader, which lets its dynamic VRAM read them
    straight from the file.
    """
    check_can_be_patched(model)
    unet = layout_of(model)
    largest = largest_numbers(folders.stamp(path))
    file = inspect(Path(path))
    check_is_delta(file, unet.family)
    check_base(file, prediction_of(model))
    tensors = comfy.utils.load_torch_file(path, safe_load=True)
    read = _lora_changes if file.has_lora_keys else plain_changes
    delta = fit(file, read(file, tensors, unet), unet, partial)
    check_numbers(delta, strength, largest)
    return delta


def patches(delta: DeltaFit) -> dict[str, Patch]:
    """ComfyUI's patch for each weight."""
    return {
        key: LoRAAdapter(set(change.tensors), (*change.factors, None, None, None))
        if change.factors
        else ("diff", tuple(change.tensors.values()))
        for key, change in delta.changes.items()
    }


@lru_cache(maxsize=1)
def largest_numbers(stamp: folders.Stamp) -> dict[str, float]:
    """For `check_numbers` to fill, so that a new strength for the file that was read last does not read it again."""
    return {}


def _lora_changes(file: WeightsFile, tensors: Mapping[str, Tensor], unet: UNetLayout) -> dict[str, Change]:
    """`.diff`, `.diff_b` and low rank, as ComfyUI's LoRA loader reads them."""
    modules, unclaimed = group_by_module(tensors, unet.modules)
    weights = by_weight(file.name, {stem: unet.modules[stem] for stem in modules})
    changes = {}
    for weight, stem in weights.items():
        of_module = {name: tensors[name] for name in modules[stem]}
        for key, patch in _loaded(file, of_module, {stem: weight}).items():
            ends = WHOLE_WEIGHT if key == weight else WHOLE_BIAS
            changes[key] = _change(file, stem, of_module, patch, unet.shapes.get(key, ()), ends)
    used = {name for change in changes.values() for name in change.tensors}
    check_all_used(file, [name for names in modules.values() for name in names if name not in used])
    unclaimed += [changes.pop(key).file_key for key in list(changes) if key not in unet.shapes]  # a layer without bias
    check_all_known(file, unclaimed, unet)
    return changes


def _loaded(file: WeightsFile, tensors: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Patch]:
    """The patches that ComfyUI's LoRA loader makes of the tensors."""
    try:
        return comfy.lora.load_lora(tensors, modules, log_missing=False)
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsFileError(
            f"{file.name} has names that do not belong together (ComfyUI's LoRA loader stopped at "
            f"{shown(str(error), 120)}), expected lora_up and lora_down for each module and a single number for alpha: "
            "make the file again."
        ) from error


def _change(
    file: WeightsFile, stem: str, tensors: Mapping[str, Tensor], patch: Patch, weight: Shape, ends: tuple[str, str]
) -> Change:
    """What a patch of ComfyUI's LoRA loader changes, and the tensors that it was made of, by their names.

    weight: the model's shape; ends: what may come after `stem` in the name of a whole difference.
    """
    if isinstance(patch, WeightAdapterBase):
        factors = _factors(file, stem, patch)
        parts = {name: tensors[name] for name in patch.loaded_keys if not name.endswith(WHOLE_WEIGHT + WHOLE_BIAS)}
        return Change(stem, _multiplied_out(factors, weight), parts, factors)
    if patch[0] != "diff":
        raise _other_kind(file, stem, patch[0])
    name = next(stem + end for end in ends if stem + end in tensors)
    return Change(name, tuple(tensors[name].shape), {name: tensors[name]})


def _factors(file: WeightsFile, stem: str, adapter: WeightAdapterBase) -> Factors:
    """Raises WeightsFileError for other kinds of adapters, and for pairs that cannot be multiplied."""
    if not isinstance(adapter, LoRAAdapter):
        raise _other_kind(file, stem, adapter.name)
    up, down, alpha, *others = adapter.weights
    if any(other is not None for other in others):
        raise _other_kind(file, stem, "LoRA with mid, dora_scale or reshape")
    if min(up.ndim, down.ndim) < 2 or not 0 < down.shape[0] == prod(up.shape[1:]):
        raise WeightsFileError(
            f"{file.name}: {shown(stem)} has lora_up of shape {tuple(up.shape)} and lora_down of shape "
            f"{tuple(down.shape)}, expected one rank in both: make the file again."
        )
    return Factors(up, down, alpha)


def _multiplied_out(factors: Factors, weight: Shape) -> Shape:
    """The shape of up times down; the weight's where the two differ by a reshape only (linear, 1x1 convolution)."""
    up, down, _ = factors
    if up.shape[0] == weight[0] and down[0].numel() == prod(weight[1:]):
        return weight
    return (up.shape[0], *down.shape[1:])


def _other_kind(file: WeightsFile, stem: str, kind: str) -> WeightsFileError:
    return WeightsFileError(
        f"{file.name} is of the kind {kind} ({shown(stem)}), expected full differences or LoRA pairs",
        Problem.OTHER_ADAPTER,
    )
