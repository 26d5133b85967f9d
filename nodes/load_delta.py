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
from ..perflow_core.delta import Change, Delta, check_finite, check_kind, fit, group_by_module, plain_changes
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
    modules, unclaimed = group_by_module(file, tensors, names)
    try:
        patches = comfy.lora.load_lora(tensors, {stem: names[stem] for stem in modules}, log_missing=False)
    except (KeyError, RuntimeError) as error:
        raise WeightsFileError(
            f"{file.name} has names that do not belong together (ComfyUI's LoRA loader stopped at {error}), expected "
            "lora_up and lora_down for each module and a single number for alpha: make the file again."
        ) from error
    stems = {names[stem]: stem for stem in modules}
    changes: dict[str, Change] = {}
    used: set[str] = set()
    for key, patch in patches.items():
        stem = stems[key.removesuffix(".bias") + ".weight" if key.endswith(".bias") and key not in stems else key]
        if isinstance(patch, WeightAdapterBase):
            used |= patch.loaded_keys | {f"{stem}.alpha"}
            changes[key] = Change(stem, _multiplied_out(file, stem, patch, shapes[key]), patch)
        else:
            (tensor,) = patch[1]
            file_key = next(name for name in modules[stem] if tensors[name] is tensor)
            used.add(file_key)
            changes[key] = Change(file_key, tuple(tensor.shape), patch)
    unclaimed += [key for keys in modules.values() for key in keys if key not in used]
    unclaimed += [changes.pop(key).file_key for key in list(changes) if key not in shapes]  # a bias the module lacks
    return changes, unclaimed


def _multiplied_out(file: WeightsFile, stem: str, adapter: WeightAdapterBase, weight: Shape) -> Shape:
    """The shape of up times down; the weight's where the two differ by a reshape only (linear, 1x1 convolution)."""
    if not isinstance(adapter, LoRAAdapter):
        raise WeightsFileError(
            f"{file.name} is of the kind {adapter.name} ({stem}), expected full differences or LoRA pairs: use Load "
            "LoRA for it, and Model Sampling PeRFlow if it holds PeRFlow's weights."
        )
    up, down = adapter.weights[0], adapter.weights[1]
    if up.shape[1] != down.shape[0]:
        raise WeightsFileError(
            f"{file.name}: {stem} has rank {up.shape[1]} up and {down.shape[0]} down, expected the same: make it again."
        )
    if up.shape[0] == weight[0] and down[0].numel() == prod(weight[1:]):
        return weight
    return (up.shape[0], *down.shape[1:])
