"""A delta file's patches for a MODEL, the tensors as they lie in the file."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import comfy.lora
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from torch import Tensor

from ..perflow_core.architecture import Shape, architecture
from ..perflow_core.delta import (
    Change,
    Delta,
    check_all_used,
    check_finite,
    check_kind,
    fit,
    group_by_module,
    plain_changes,
)
from ..perflow_core.weights_file import WeightsFile, WeightsFileError, inspect
from .unet_names import lora_names, plain_names, unet_shapes


def load_delta(path: str, model: ModelPatcher, partial: bool = False) -> tuple[WeightsFile, Delta]:
    """What the file is, and its changes by the model's names. Raises WeightsFileError for one that does not fit."""
    file = inspect(Path(path))
    shapes = unet_shapes(model)
    check_kind(file, architecture(shapes))
    tensors = comfy.utils.load_torch_file(path, safe_load=True)
    if file.layout == "LoRA keys":
        changes, unclaimed = adapter_changes(file, tensors, lora_names(model), shapes)
    else:
        changes, unclaimed = plain_changes(file, tensors, plain_names(model, shapes))
    delta = fit(file, changes, unclaimed, shapes, partial)
    check_finite(file, tensors)
    return file, delta


def adapter_changes(
    file: WeightsFile, tensors: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, Shape]
) -> tuple[dict[str, Change], list[str]]:
    """The changes of a file with LoRA keys (.diff, .diff_b, low rank), and its tensors the model has no place for."""
    names = {name: key for name, key in names.items() if key in shapes}  # ComfyUI's map has more than the model
    modules, unclaimed = group_by_module(file, tensors, names)
    try:
        patches = comfy.lora.load_lora(tensors, {stem: names[stem] for stem in modules}, log_missing=False)
    except (KeyError, RuntimeError) as error:
        raise WeightsFileError(
            f"{file.name} has names that do not belong together (ComfyUI's LoRA loader stopped at {error}), expected "
            "lora_up and lora_down for each module and a single number for alpha: make the file again."
        ) from error
    stems = {names[stem]: stem for stem in modules}
    claimed = [key for keys in modules.values() for key in keys]
    file_keys = {id(tensors[key]): key for key in claimed}
    changes: dict[str, Change] = {}
    used: set[str] = set()
    for key, patch in patches.items():
        if isinstance(patch, WeightAdapterBase):
            changes[key] = Change(stems[key], _multiplied_out(file, stems[key], patch, shapes[key]), patch)
            used |= {file_keys[id(part)] for part in patch.weights if isinstance(part, Tensor)}
            used.add(f"{stems[key]}.alpha")
        elif patch[0] == "diff":
            (tensor,) = patch[1]
            changes[key] = Change(file_keys[id(tensor)], tuple(tensor.shape), patch)
            used.add(changes[key].file_key)
        else:
            raise _other_kind(file, stems[key], patch[0])
    check_all_used(file, [key for key in claimed if key not in used])
    unclaimed += [changes.pop(key).file_key for key in list(changes) if key not in shapes]  # a bias the module lacks
    return changes, unclaimed


def _multiplied_out(file: WeightsFile, stem: str, adapter: WeightAdapterBase, weight: Shape) -> Shape:
    """The shape of up times down; the weight's where the two differ by a reshape only (linear, 1x1 convolution)."""
    if not isinstance(adapter, LoRAAdapter):
        raise _other_kind(file, stem, adapter.name)
    up, down, _, mid, dora_scale, reshape = adapter.weights
    if not (mid is None and dora_scale is None and reshape is None):
        raise _other_kind(file, stem, "LoRA with mid, dora_scale or reshape")
    if min(up.ndim, down.ndim) < 2 or not 0 < down.shape[0] == prod(up.shape[1:]):
        raise WeightsFileError(
            f"{file.name}: {stem} has lora_up of shape {tuple(up.shape)} and lora_down of shape {tuple(down.shape)}, "
            "expected one rank in both: make the file again."
        )
    if up.shape[0] == weight[0] and down[0].numel() == prod(weight[1:]):
        return weight
    return (up.shape[0], *down.shape[1:])


def _other_kind(file: WeightsFile, stem: str, kind: str) -> WeightsFileError:
    return WeightsFileError(
        f"{file.name} is of the kind {kind} ({stem}), expected full differences or LoRA pairs: use Load LoRA for it, "
        "and Model Sampling PeRFlow if it holds PeRFlow's weights."
    )
