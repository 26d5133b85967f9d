"""A PeRFlow delta, dW = W_perflow - W_base for every tensor of a UNet: which tensors of a file make up which dW.

Tensors are passed on untouched (memory-mapped views stay views), and every tensor of the file is accounted for: it has
its place in the model, or an error names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import tensors_named
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
