"""A delta file as ComfyUI's patches for a MODEL, the tensors as they lie in the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.utils
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from torch import Tensor

from ....perflow_core.errors import Problem
from ....perflow_core.messages import shown
from ....perflow_core.weights.architecture import Shape, UNet
from ....perflow_core.weights.delta import Change, Factors, check_all_used, group_by_module, plain_changes
from ....perflow_core.weights.delta_kind import check_kind
from ....perflow_core.weights.delta_match import Delta, match
from ....perflow_core.weights.magnitudes import check_numbers
from ....perflow_core.weights.weights_file import WeightsFile, WeightsFileError, inspect
from .. import folders

WHOLE = (".diff", ".w_norm", ".diff_b", ".b_norm")  # what a weight and a bias may be called, in the order of their rank

Patch = Any  # what ModelPatcher.add_patches takes for a weight


@dataclass(frozen=True)
class Reading:
    """The changes in a file and ComfyUI's patch for each, by the model's names; the tensors without a place there."""

    changes: dict[str, Change]
    patches: dict[str, Patch]
    unclaimed: list[str]


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
    path: str, unet: UNet, partial: bool = False, strength: float = 1.0
) -> tuple[WeightsFile, Delta, dict[str, Patch]]:
    """What the file is, what of it fits the UNet, and the patches for that.

    Raises WeightsFileError for a file that does not fit.
    """
    known = _numbers.of(folders.stamp(path))
    file = inspect(Path(path))
    check_kind(file, unet.family)
    reading = read(file, comfy.utils.load_torch_file(path, safe_load=True), unet)
    delta = match(file, reading.changes, reading.unclaimed, unet, partial)
    check_numbers(file, delta.changes, strength, unet.dtypes, known)
    return file, delta, {key: reading.patches[key] for key in delta.changes}


def read(file: WeightsFile, tensors: Mapping[str, Tensor], unet: UNet) -> Reading:
    """Which weight each tensor is for, in a file that names them as a model does or by LoRA keys."""
    if file.layout == "LoRA keys":
        return _read_lora_keys(file, tensors, unet)
    changes, unclaimed = plain_changes(file, tensors, unet.names)
    return Reading(changes, {key: ("diff", tuple(c.tensors.values())) for key, c in changes.items()}, unclaimed)


def _read_lora_keys(file: WeightsFile, tensors: Mapping[str, Tensor], unet: UNet) -> Reading:
    """`.diff`, `.diff_b` and low rank, as ComfyUI's LoRA loader reads them."""
    modules, unclaimed = group_by_module(file, tensors, unet.modules)
    changes: dict[str, Change] = {}
    patches: dict[str, Patch] = {}
    for stem, keys in modules.items():
        module = _module_patches(file, stem, {key: tensors[key] for key in keys}, unet.modules[stem])
        patches |= module
        for key, patch in module.items():
            of_weight = key == unet.modules[stem]
            changes[key] = _change(file, stem, tensors, patch, unet.shapes.get(key, ()), of_weight)
    used = {key for change in changes.values() for key in change.tensors}
    check_all_used(file, [key for keys in modules.values() for key in keys if key not in used])
    unclaimed += [changes.pop(key).file_key for key in list(changes) if key not in unet.shapes]  # a layer without bias
    return Reading(changes, patches, unclaimed)


def _module_patches(file: WeightsFile, stem: str, tensors: Mapping[str, Tensor], weight_key: str) -> dict[str, Patch]:
    """The patches of one module, as ComfyUI's LoRA loader makes them of its tensors."""
    try:
        return comfy.lora.load_lora(tensors, {stem: weight_key}, log_missing=False)
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsFileError(
            f"{file.name} has names that do not belong together (ComfyUI's LoRA loader stopped at "
            f"{shown(str(error), 120)}), expected lora_up and lora_down for each module and a single number for alpha: "
            "make the file again."
        ) from error


def _change(
    file: WeightsFile, stem: str, tensors: Mapping[str, Tensor], patch: Patch, weight: Shape, of_weight: bool
) -> Change:
    """What a patch of ComfyUI's LoRA loader changes, and the tensors that it was made of, told by their names."""
    if isinstance(patch, WeightAdapterBase):
        factors = _factors(file, stem, patch)
        parts = {name: tensors[name] for name in patch.loaded_keys if not name.endswith(WHOLE)}
        return Change(stem, _multiplied_out(factors, weight), parts, factors)
    if patch[0] != "diff":
        raise _other_kind(file, stem, patch[0])
    whole, norm = WHOLE[:2] if of_weight else WHOLE[2:]
    name = stem + (whole if stem + whole in tensors else norm)
    return Change(name, tuple(tensors[name].shape), {name: tensors[name]})


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
        f"{file.name} is of the kind {kind} ({shown(stem)}), expected full differences or LoRA pairs",
        Problem.OTHER_ADAPTER,
    )
