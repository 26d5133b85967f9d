"""A PeRFlow delta, dW = W_perflow - W_base for every tensor of a UNet, and whether it fits a model.

Tensors are passed on untouched (memory-mapped views stay views), and every tensor of the file is accounted for: it has
its place in the model, or an error names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from .architecture import Shape, architecture
from .parameterization import PREDICTION_TYPES, PredictionType
from .pcm_loras import looks_like_pcm
from .weights_file import FLOATS, WeightsFile, WeightsFileError
from .wording import MOST_DIMENSIONS, shown, sizes, tensor_count, tensors_named

MODEL_PREFIX = "diffusion_model."
FILE_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.")
INTEGERS = ("I8", "I16", "I32", "I64", "U8")  # readable, but good for the alpha of a LoRA only
OLD_NAMES = {"epsilon": "diff_eps"}  # what the authors' code called it before 2024-04-25
INPUT_LAYER = "input_blocks.0.0.weight"  # the one that an inpainting model has wider
LARGEST_SIZE = 2**31


class Factors(NamedTuple):
    """A low-rank difference, scale up down, with up [out, r, ...] and down [r, in, ...]."""

    up: Tensor
    down: Tensor
    scale: float


@dataclass(frozen=True)
class Change:
    """One weight's difference: the file's name for it, its shape when multiplied out, and the patch itself.

    tensors: what it is made of, by the file's names; factors: where it is low-rank.
    """

    file_key: str
    shape: Shape
    patch: Any
    tensors: Mapping[str, Tensor]
    factors: Factors | None = None


@dataclass(frozen=True)
class Delta:
    """The changes that fit, by the model's names; with `partial` also the names of those of another shape, and of the
    weights for which the file has none.
    """

    changes: dict[str, Change]
    left_out: list[str]
    without: list[str]


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
            changes[model_key] = Change(key, tuple(tensor.shape), ("diff", (tensor,)), {key: tensor})
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


def check_kind(file: WeightsFile, model_architecture: str) -> None:
    """Raises WeightsFileError for a file that holds no weight difference, or one for another architecture."""
    expected = f"expected a PeRFlow delta for this {model_architecture} model"
    if not file.shapes:
        raise WeightsFileError(f"{file.name} holds no tensors, {expected}: download or make it again.")
    for key, shape in file.shapes.items():
        if len(shape) > MOST_DIMENSIONS or max(shape, default=0) >= LARGEST_SIZE:
            raise WeightsFileError(
                f"{file.name}: tensor {shown(key)} has shape {sizes(shape)}, expected one that a model can have: "
                "download or make the file again."
            )
    unreadable = [dtype for dtype in file.dtypes if dtype not in FLOATS + INTEGERS]
    if unreadable:
        raise WeightsFileError(
            f"{file.name} holds {', '.join(unreadable)} numbers, {expected} in F16, BF16 or F32: download or make it "
            "again in one of those."
        )
    if file.kind == "text encoder":
        raise WeightsFileError(f"{file.name} is a text encoder, {expected}: choose another file.")
    if file.kind == "full model" and file.architecture == "unknown":
        raise WeightsFileError(
            f"{file.name} is a full model of an unknown kind (its norm weights are near 1; a difference has them near "
            f"0), {expected}: choose another file."
        )
    if file.kind == "full model":
        raise WeightsFileError(
            f"{file.name} is a full {file.architecture} model (its norm weights are near 1; a difference has them near "
            f"0), {expected}: load it with Load Diffusion Model and use Model Sampling PeRFlow."
        )
    if file.kind == "low-rank difference" and "prediction_type" not in file.metadata and looks_like_pcm(file.shapes):
        raise WeightsFileError(
            f"{file.name} is a LoRA for the layers that PCM and LCM LoRAs change, and it does not mention PeRFlow, "
            f"{expected}: use Load LoRA for it, with Phase Schedule (PCM) for a PCM LoRA or Model Sampling PeRFlow for "
            "PeRFlow's weights."
        )
    if file.architecture not in (model_architecture, "unknown"):
        raise WeightsFileError(
            f"{file.name} is made for {file.architecture}, {expected}: choose a delta for {model_architecture}, or "
            f"load an {file.architecture} checkpoint."
        )


def fit(
    file: WeightsFile,
    changes: Mapping[str, Change],
    unclaimed: Sequence[str],
    model_shapes: Mapping[str, Shape],
    partial: bool = False,
) -> Delta:
    """The changes that have a place in the model of those shapes. Raises WeightsFileError, naming what does not fit.

    unclaimed: the file's tensors for which the model has no name. With partial, changes of another shape are left out
    and missing ones accepted; tensors the model does not know are refused all the same. A low-rank file may always
    cover fewer weights than the model has.
    """
    expected = f"expected a delta for the {len(model_shapes)} UNet tensors of this {architecture(model_shapes)} model"
    if unclaimed:
        raise WeightsFileError(
            f"{file.name} has {tensors_named(unclaimed)}, which the model does not have, {expected}: "
            "choose a PeRFlow delta made for this kind of model."
        )
    misfits = [key for key, change in changes.items() if change.shape != model_shapes[key]]
    missing = [] if file.kind == "low-rank difference" else sorted(model_shapes.keys() - changes.keys())
    if misfits and not partial:
        raise WeightsFileError(_misfit(file, misfits, changes, model_shapes))
    if missing and not partial:
        raise WeightsFileError(
            f"{file.name} has {tensor_count(len(changes))} and lacks {tensors_named(missing)}, {expected}: download or "
            "make it again, or turn on partial to apply what there is."
        )
    fitting = {key: change for key, change in changes.items() if key not in misfits}
    if not fitting:
        raise WeightsFileError(
            f"{file.name} has no tensor that fits, {expected}: choose a delta made for this kind of model."
        )
    return Delta(fitting, misfits, missing)


def _misfit(
    file: WeightsFile, misfits: Sequence[str], changes: Mapping[str, Change], model_shapes: Mapping[str, Shape]
) -> str:
    key = misfits[0]
    found, expected = changes[key].shape, model_shapes[key]
    others = f", and {len(misfits) - 1} more do not fit either" if len(misfits) > 1 else ""
    advice = "choose a delta made for this kind of model, or turn on partial to leave it out"
    if key.endswith(INPUT_LAYER) and len(expected) == 4 and expected[1] > 4:
        kind = "an inpainting model" if expected[1] == 9 else "a model with extra input channels"
        advice = f"this is {kind}, so turn on partial to leave that tensor out and apply the others"
    return (
        f"{file.name}: tensor {shown(changes[key].file_key)} has shape {sizes(found)}, expected {sizes(expected)} "
        f"as in the model{others}: {advice}."
    )


def prediction_type(file: WeightsFile) -> PredictionType | None:
    """What the file's metadata says; None where it says nothing. Raises WeightsFileError for an unknown word."""
    value = file.metadata.get("prediction_type")
    value = OLD_NAMES.get(value or "", value)
    for known in PREDICTION_TYPES:
        if value == known:
            return known
    if value is None:
        return None
    raise WeightsFileError(
        f'{file.name} says prediction_type "{shown(value, 40)}", expected one of {", ".join(PREDICTION_TYPES)}: '
        "ask whoever made the file, and choose it on the node instead of auto."
    )


def windows(file: WeightsFile) -> int | None:
    """What the file's metadata says; None where it says nothing. Raises WeightsFileError for anything but a number."""
    value = file.metadata.get("windows")
    if value is None:
        return None
    if value.isdecimal() and len(value) <= 4 and 0 < int(value) <= 1000:
        return int(value)
    raise WeightsFileError(
        f'{file.name} says windows "{shown(value, 40)}", expected a whole number from 1 to 1000: choose it on the node.'
    )
