"""A delta file as ComfyUI's patches for a MODEL: read, fitted to its UNet, and the tensors as they lie in the file."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from torch import Tensor

from ....perflow_core.errors import Problem, shown
from ....perflow_core.weights.delta_changes import Change, Factors, changes_of, low_rank_change
from ....perflow_core.weights.delta_file import check_base, check_is_delta
from ....perflow_core.weights.delta_fit import DeltaFit, check_numbers, fit
from ....perflow_core.weights.lora_file import WHOLE_BIAS, WHOLE_WEIGHT
from ....perflow_core.weights.unet_layout import Shape, UNetLayout
from ....perflow_core.weights.weights_file import WeightsFile, WeightsFileError, inspect
from .. import folders
from ..sampling.base_sampling import prediction_of
from .unet_weights import check_can_be_patched, layout_of

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
    delta = fit(file, changes_of(file, tensors, unet, _module_changes), unet, partial)
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


def _module_changes(file: WeightsFile, unet: UNetLayout, stem: str, tensors: Mapping[str, Tensor]) -> dict[str, Change]:
    """`.diff`, `.diff_b` and low rank, as ComfyUI's LoRA loader reads them for the layer that `stem` names."""
    weight = unet.modules[stem]
    return {
        key: _change(
            file, stem, tensors, patch, unet.shapes.get(key, ()), WHOLE_WEIGHT if key == weight else WHOLE_BIAS
        )
        for key, patch in _loaded(file, tensors, {stem: weight}).items()
    }


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
        parts = {name: tensors[name] for name in patch.loaded_keys if not name.endswith(WHOLE_WEIGHT + WHOLE_BIAS)}
        return low_rank_change(file, stem, _factors(file, stem, patch), parts, weight)
    if patch[0] != "diff":
        raise _other_kind(file, stem, patch[0])
    name = next(stem + end for end in ends if stem + end in tensors)
    return Change(name, tuple(tensors[name].shape), {name: tensors[name]})


def _factors(file: WeightsFile, stem: str, adapter: WeightAdapterBase) -> Factors:
    """Raises WeightsFileError for other kinds of adapters."""
    if not isinstance(adapter, LoRAAdapter):
        raise _other_kind(file, stem, adapter.name)
    up, down, alpha, *others = adapter.weights
    if any(other is not None for other in others):
        raise _other_kind(file, stem, "LoRA with mid, dora_scale or reshape")
    return Factors(up, down, alpha)


def _other_kind(file: WeightsFile, stem: str, kind: str) -> WeightsFileError:
    return WeightsFileError(
        f"{file.name} is of the kind {kind} ({shown(stem)}), expected full differences or LoRA pairs",
        Problem.OTHER_ADAPTER,
    )
