"""A PeRFlow delta, dW = W_perflow - W_base for every tensor of a UNet: which tensors of a file make up which dW.

Tensors are passed on untouched (memory-mapped views stay views), and every tensor of the file is accounted for: it has
its place in the model, or an error names it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import shown, tensors_named
from .lora_file import ALPHA, PAIRS, WHOLE_BIAS, WHOLE_WEIGHT
from .unet_layout import Shape, UNetLayout, without_prefix
from .weights_file import WeightsFile, WeightsFileError, by_weight


class Factors(NamedTuple):
    """A low-rank difference, alpha / r up down, with up [out, r, ...] and down [r, in, ...]; no alpha is alpha = r."""

    up: Tensor
    down: Tensor
    alpha: float | None = None

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.down.shape[0]


@dataclass(frozen=True)
class Change:
    """One weight's difference: the file's name for it, and its shape when multiplied out.

    tensors: what it is made of, by the file's names; factors: where it is low-rank.
    """

    file_key: str
    shape: Shape
    tensors: Mapping[str, Tensor]
    factors: Factors | None = None

    def multiplied_out(self, device: torch.device) -> Tensor:
        """dW in float32."""
        if self.factors is None:
            return next(iter(self.tensors.values())).to(device, torch.float32).reshape(self.shape)
        up, down = (half.to(device, torch.float32).flatten(1) for half in self.factors[:2])
        return (self.factors.scale * up @ down).reshape(self.shape)


def plain_changes(file: WeightsFile, tensors: Mapping[str, Tensor], unet: UNetLayout) -> dict[str, Change]:
    """The changes, by the model's names, of a file that names its tensors as a model does.

    Raises WeightsFileError where two tensors are for one weight, and for tensors that the model has no place for.
    """
    place = {key: unet.names.get(without_prefix(key)) for key in tensors}
    file_keys = by_weight(file.name, {key: weight for key, weight in place.items() if weight is not None})
    check_all_known(file, [key for key, weight in place.items() if weight is None], unet)
    return {weight: Change(key, tuple(tensors[key].shape), {key: tensors[key]}) for weight, key in file_keys.items()}


OfModule = Callable[[WeightsFile, UNetLayout, str, Mapping[str, Tensor]], dict[str, Change]]


def module_changes(file: WeightsFile, unet: UNetLayout, stem: str, tensors: Mapping[str, Tensor]) -> dict[str, Change]:
    """The changes of the layer that `stem` names: whole differences, or a pair for its weight.

    tensors: those of the layer, by the file's names.
    """
    weight = unet.modules[stem]
    changes = {}
    for up, down in (pair for pair in PAIRS if stem + pair[0] in tensors and stem + pair[1] in tensors):
        parts = {stem + end: tensors[stem + end] for end in (up, down, ALPHA) if stem + end in tensors}
        alpha = float(parts[stem + ALPHA]) if stem + ALPHA in parts and parts[stem + ALPHA].numel() == 1 else None
        factors = Factors(parts[stem + up], parts[stem + down], alpha)
        changes[weight] = low_rank_change(file, stem, factors, parts, unet.shapes[weight])
    for key, ends in ((weight, WHOLE_WEIGHT), (f"{weight.removesuffix('.weight')}.bias", WHOLE_BIAS)):
        for name in (stem + end for end in ends if stem + end in tensors):
            changes.setdefault(key, Change(name, tuple(tensors[name].shape), {name: tensors[name]}))
    return changes


def changes_of(
    file: WeightsFile, tensors: Mapping[str, Tensor], unet: UNetLayout, of_module: OfModule = module_changes
) -> dict[str, Change]:
    """The changes of a delta file, by the model's names; of_module reads the layers of a file with LoRA keys.

    Raises WeightsFileError where two tensors or layers are for one weight, and for tensors without a place or use.
    """
    return _lora_changes(file, tensors, unet, of_module) if file.has_lora_keys else plain_changes(file, tensors, unet)


def _lora_changes(
    file: WeightsFile, tensors: Mapping[str, Tensor], unet: UNetLayout, of_module: OfModule
) -> dict[str, Change]:
    modules, unclaimed = group_by_module(tensors, unet.modules)
    changes: dict[str, Change] = {}
    for stem in by_weight(file.name, {stem: unet.modules[stem] for stem in modules}).values():
        changes |= of_module(file, unet, stem, {name: tensors[name] for name in modules[stem]})
    used = {name for change in changes.values() for name in change.tensors}
    check_all_used(file, [name for names in modules.values() for name in names if name not in used])
    unclaimed += [changes.pop(key).file_key for key in list(changes) if key not in unet.shapes]  # a layer without bias
    check_all_known(file, unclaimed, unet)
    return changes


def low_rank_change(
    file: WeightsFile, stem: str, factors: Factors, tensors: Mapping[str, Tensor], weight: Shape
) -> Change:
    """The change that a pair makes; tensors: what it is made of, weight: the model's shape.

    Where up times down differs from it by a reshape only (linear, 1x1 convolution), the change has the model's.
    Raises WeightsFileError for a pair that cannot be multiplied.
    """
    up, down, _ = factors
    if min(up.ndim, down.ndim) < 2 or not 0 < down.shape[0] == prod(up.shape[1:]):
        raise WeightsFileError(
            f"{file.name}: {shown(stem)} has lora_up of shape {tuple(up.shape)} and lora_down of shape "
            f"{tuple(down.shape)}, expected one rank in both: make the file again."
        )
    same = up.shape[0] == weight[0] and down[0].numel() == prod(weight[1:])
    return Change(stem, weight if same else (up.shape[0], *down.shape[1:]), tensors, factors)


def group_by_module(keys: Iterable[str], modules: Mapping[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    """The tensors of a file with LoRA keys by the module they name, and those whose module the model does not have.

    modules: as in UNetLayout.
    """
    groups: dict[str, list[str]] = {}
    unclaimed = []
    for key in keys:
        stem = key
        while stem and stem.removesuffix("_lora") not in modules:
            stem = stem.rpartition(".")[0]
        if stem:
            groups.setdefault(stem.removesuffix("_lora"), []).append(key)
        else:
            unclaimed.append(key)
    return groups, unclaimed


def check_all_known(file: WeightsFile, unclaimed: Sequence[str], unet: UNetLayout) -> None:
    """Raises WeightsFileError for tensors that the model has no name for."""
    if unclaimed:
        raise WeightsFileError(
            f"{file.name} has {tensors_named(unclaimed)}, which the model does not have, expected a delta for the "
            f"{unet}: choose a PeRFlow delta made for this kind of model."
        )


def check_all_used(file: WeightsFile, unused: Sequence[str]) -> None:
    """Raises WeightsFileError for tensors of known modules that no change was made of."""
    if unused:
        raise WeightsFileError(
            f"{file.name} has {tensors_named(unused)} of an unknown kind, half of a pair, or a second one for a "
            "weight, expected one .diff or one pair of lora_up and lora_down for each weight: make the file again."
        )
