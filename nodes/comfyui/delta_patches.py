"""A delta file's patches for a MODEL, the tensors as they lie in the file."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import comfy.lora
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from torch import Tensor

from ...perflow_core.architecture import Shape, architecture
from ...perflow_core.delta import (
    Change,
    Delta,
    Factors,
    check_all_used,
    check_kind,
    fit,
    group_by_module,
    plain_changes,
)
from ...perflow_core.magnitudes import check_numbers
from ...perflow_core.weights_file import WeightsFile, WeightsFileError, inspect
from ...perflow_core.wording import shown
from . import folders
from .unet import lora_names, plain_names, unet_weights

WHOLE = (".diff", ".w_norm", ".diff_b", ".b_norm")  # what a weight and a bias may be called, in the order of their rank


class _Numbers:
    """The largest number of each tensor of the file that was read last, so that a new strength does not read it again.

    The file counts as the same while its path, size and time are. Its tensors are not kept: they are views of the file.
    """

    def __init__(self) -> None:
        self.stamp: folders.Stamp | None = None
        self.known: dict[str, float] = {}

    def of(self, stamp: folders.Stamp) -> dict[str, float]:
        if stamp != self.stamp:
            self.stamp, self.known = stamp, {}
        return self.known


_numbers = _Numbers()


def load_delta(
    path: str, model: ModelPatcher, partial: bool = False, strength: float = 1.0
) -> tuple[WeightsFile, Delta]:
    """What the file is, and its changes by the model's names. Raises WeightsFileError for one that does not fit."""
    known = _numbers.of(folders.stamp(path))
    file = inspect(Path(path))
    weights = unet_weights(model)
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    check_kind(file, architecture(shapes))
    check_can_be_patched(weights)
    tensors = comfy.utils.load_torch_file(path, safe_load=True)
    if file.layout == "LoRA keys":
        changes, unclaimed = adapter_changes(file, tensors, lora_names(model), shapes)
    else:
        changes, unclaimed = plain_changes(file, tensors, plain_names(model, shapes))
    delta = fit(file, changes, unclaimed, shapes, partial)
    check_numbers(file, delta.changes, strength, {key: weight.dtype for key, weight in weights.items()}, known)
    return file, delta


def check_can_be_patched(weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError for weights in a form of which ComfyUI knows no way to add to them."""
    for key, weight in weights.items():
        if not weight.dtype.is_floating_point:
            raise ValueError(
                f"The model's weight {key} is stored as {weight.dtype}, to which nothing can be added, expected fp16, "
                "bf16, fp32, fp8 or another format that ComfyUI's own loaders quantise with: load the model in one of "
                "those."
            )


def adapter_changes(
    file: WeightsFile, tensors: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, Shape]
) -> tuple[dict[str, Change], list[str]]:
    """The changes of a file with LoRA keys (.diff, .diff_b, low rank), and its tensors the model has no place for."""
    names = {name: key for name, key in names.items() if key in shapes}  # ComfyUI's map has more than the model
    modules, unclaimed = group_by_module(file, tensors, names)
    changes: dict[str, Change] = {}
    for stem, keys in modules.items():
        changes |= _module_changes(file, stem, {key: tensors[key] for key in keys}, names[stem], shapes)
    used = {key for change in changes.values() for key in change.tensors}
    check_all_used(file, [key for keys in modules.values() for key in keys if key not in used])
    unclaimed += [changes.pop(key).file_key for key in list(changes) if key not in shapes]  # a bias the module lacks
    return changes, unclaimed


def _module_changes(
    file: WeightsFile, stem: str, tensors: Mapping[str, Tensor], weight_key: str, shapes: Mapping[str, Shape]
) -> dict[str, Change]:
    """The changes of one module, as ComfyUI's LoRA loader makes them of its tensors; what it read is told by name."""
    try:
        patches = comfy.lora.load_lora(tensors, {stem: weight_key}, log_missing=False)
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsFileError(
            f"{file.name} has names that do not belong together (ComfyUI's LoRA loader stopped at "
            f"{shown(str(error), 120)}), expected lora_up and lora_down for each module and a single number for alpha: "
            "make the file again."
        ) from error
    changes: dict[str, Change] = {}
    for key, patch in patches.items():
        if isinstance(patch, WeightAdapterBase):
            factors = _factors(file, stem, patch)
            read = {name: tensors[name] for name in patch.loaded_keys if not name.endswith(WHOLE)}
            changes[key] = Change(stem, _multiplied_out(factors, shapes[key]), patch, read, factors)
        elif patch[0] == "diff":
            whole, norm = WHOLE[:2] if key == weight_key else WHOLE[2:]
            name = stem + (whole if stem + whole in tensors else norm)
            changes[key] = Change(name, tuple(tensors[name].shape), patch, {name: tensors[name]})
        else:
            raise _other_kind(file, stem, patch[0])
    return changes


def _factors(file: WeightsFile, stem: str, adapter: WeightAdapterBase) -> Factors:
    """Raises WeightsFileError for other kinds of adapters, and for pairs that cannot be multiplied."""
    if not isinstance(adapter, LoRAAdapter):
        raise _other_kind(file, stem, adapter.name)
    up, down, alpha, mid, dora_scale, reshape = adapter.weights
    if not (mid is None and dora_scale is None and reshape is None):
        raise _other_kind(file, stem, "LoRA with mid, dora_scale or reshape")
    if min(up.ndim, down.ndim) < 2 or not 0 < down.shape[0] == prod(up.shape[1:]):
        raise WeightsFileError(
            f"{file.name}: {shown(stem)} has lora_up of shape {tuple(up.shape)} and lora_down of shape "
            f"{tuple(down.shape)}, expected one rank in both: make the file again."
        )
    return Factors(up, down, 1.0 if alpha is None else alpha / down.shape[0])


def _multiplied_out(factors: Factors, weight: Shape) -> Shape:
    """The shape of up times down; the weight's where the two differ by a reshape only (linear, 1x1 convolution)."""
    up, down, _ = factors
    if up.shape[0] == weight[0] and down[0].numel() == prod(weight[1:]):
        return weight
    return (up.shape[0], *down.shape[1:])


def _other_kind(file: WeightsFile, stem: str, kind: str) -> WeightsFileError:
    return WeightsFileError(
        f"{file.name} is of the kind {kind} ({shown(stem)}), expected full differences or LoRA pairs: use Load LoRA "
        "for it, and Model Sampling PeRFlow if it holds PeRFlow's weights."
    )
