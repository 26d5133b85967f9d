"""A PeRFlow delta, dW = W_perflow - W_base for every tensor of a UNet: its parts, and which weight each part is for.

Tensors are passed on untouched (memory-mapped views stay views), and every tensor of the file is accounted for: it has
its place in the model, or an error names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..messages import shown, tensors_named
from .architecture import Shape
from .weights_file import WeightsFile, WeightsFileError

FILE_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.")


class Factors(NamedTuple):
    """A low-rank difference, scale up down, with up [out, r, ...] and down [r, in, ...]."""

    up: Tensor
    down: Tensor
    scale: float


@dataclass(frozen=True)
class Change:
    """One weight's difference: the file's name for it, and its shape when multiplied out.

    tensors: what it is made of, by the file's names; factors: where it is low-rank.
    """

    file_key: str
    shape: Shape
    tensors: Mapping[str, Tensor]
    factors: Factors | None = None


def without_prefix(key: str) -> str:
    """A tensor's name in its UNet, whatever a file puts before it."""
    return next((key.removeprefix(prefix) for prefix in FILE_PREFIXES if key.startswith(prefix)), key)


def plain_changes(
    file: WeightsFile, tensors: Mapping[str, Tensor], names: Mapping[str, str]
) -> tuple[dict[str, Change], list[str]]:
    """The changes of a file that names its tensors as a model does, and its tensors that the model has no place for.

    names: a name without prefix -> the model's. Raises WeightsFileError where two tensors are for one weight.
    """
    changes: dict[str, Change] = {}
    unclaimed = []
    for key, tensor in tensors.items():
        model_key = names.get(without_prefix(key))
        if model_key is None:
            unclaimed.append(key)
        elif model_key in changes:
            raise _twice(file, model_key, changes[model_key].file_key, key)
        else:
            changes[model_key] = Change(key, tuple(tensor.shape), {key: tensor})
    return changes, unclaimed


def group_by_module(
    file: WeightsFile, keys: Iterable[str], names: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The tensors of a file with LoRA keys by the module they name, and those whose module the model does not have.

    names: every name of a module -> the model's name of its weight. Raises WeightsFileError where a file uses two names
    for one module.
    """
    modules: dict[str, list[str]] = {}
    unclaimed = []
    for key in keys:
        stem = key
        while stem and stem.removesuffix("_lora") not in names:
            stem = stem.rpartition(".")[0]
        if stem:
            modules.setdefault(stem.removesuffix("_lora"), []).append(key)
        else:
            unclaimed.append(key)
    first: dict[str, str] = {}
    for stem in modules:
        if names[stem] in first:
            raise _twice(file, names[stem], first[names[stem]], stem)
        first[names[stem]] = stem
    return modules, unclaimed


def _twice(file: WeightsFile, model_key: str, one: str, other: str) -> WeightsFileError:
    return WeightsFileError(
        f"{file.name} holds the weight {model_key} twice, as {shown(one)} and as {shown(other)}, expected it once: "
        "make the file again."
    )


def check_all_used(file: WeightsFile, unused: Sequence[str]) -> None:
    """Raises WeightsFileError for tensors of known modules that no change was made of."""
    if unused:
        raise WeightsFileError(
            f"{file.name} has {tensors_named(unused)} of an unknown kind, half of a pair, or a second one for a "
            "weight, expected one .diff or one pair of lora_up and lora_down for each weight: make the file again."
        )
