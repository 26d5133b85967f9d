"""Whether a delta file is one for a model's UNet: its kind, its names and shapes, and what its metadata says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .architecture import INPUT_LAYER, Shape, UNet
from .delta import Change
from .errors import Problem
from .parameterization import PREDICTION_TYPES, PredictionType
from .pcm_loras import looks_like_pcm
from .weights_file import FLOATS, WeightsFile, WeightsFileError
from .wording import MOST_DIMENSIONS, shown, sizes, tensor_count, tensors_named

INTEGERS = ("I8", "I16", "I32", "I64", "U8")  # readable, but good for the alpha of a LoRA only
OLD_NAMES = {"epsilon": "diff_eps"}  # what the official code called it before 2024-04-25
LARGEST_SIZE = 2**31
TEXT_TO_IMAGE_CHANNELS, INPAINTING_CHANNELS = 4, 9  # that the input layer reads


@dataclass(frozen=True)
class Delta:
    """The changes that fit, by the model's names; with `partial` also the names of those of another shape, and of the
    weights for which the file has none.
    """

    changes: dict[str, Change]
    left_out: list[str]
    without: list[str]


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
            f"0), {expected}",
            Problem.FULL_MODEL,
        )
    if file.kind == "low-rank difference" and "prediction_type" not in file.metadata and looks_like_pcm(file.shapes):
        raise WeightsFileError(
            f"{file.name} is a LoRA for the layers that PCM and LCM LoRAs change, and it does not mention PeRFlow, "
            f"{expected}",
            Problem.OTHER_LORA,
        )
    if file.architecture not in (model_architecture, "unknown"):
        raise WeightsFileError(
            f"{file.name} is made for {file.architecture}, {expected}: choose a delta for {model_architecture}, or "
            f"load an {file.architecture} checkpoint."
        )


def match(
    file: WeightsFile, changes: Mapping[str, Change], unclaimed: Sequence[str], unet: UNet, partial: bool = False
) -> Delta:
    """The changes that have a place in the model's UNet. Raises WeightsFileError, naming what does not fit.

    unclaimed: the file's tensors for which the model has no name. With partial, changes of another shape are left out
    and missing ones accepted; tensors the model does not know are refused all the same. A low-rank file may always
    cover fewer weights than the model has.
    """
    expected = f"expected a delta for the {len(unet.shapes)} UNet tensors of this {unet.family} model"
    if unclaimed:
        raise WeightsFileError(
            f"{file.name} has {tensors_named(unclaimed)}, which the model does not have, {expected}: "
            "choose a PeRFlow delta made for this kind of model."
        )
    misfits = [key for key, change in changes.items() if change.shape != unet.shapes[key]]
    missing = [] if file.kind == "low-rank difference" else sorted(unet.shapes.keys() - changes.keys())
    if misfits and not partial:
        raise _misfit(file, misfits, changes, unet.shapes)
    if missing and not partial:
        raise WeightsFileError(
            f"{file.name} has {tensor_count(len(changes))} and lacks {tensors_named(missing)}, {expected}",
            Problem.INCOMPLETE,
        )
    fitting = {key: change for key, change in changes.items() if key not in misfits}
    if not fitting:
        raise WeightsFileError(
            f"{file.name} has no tensor that fits, {expected}: choose a delta made for this kind of model."
        )
    return Delta(fitting, misfits, missing)


def _misfit(
    file: WeightsFile, misfits: Sequence[str], changes: Mapping[str, Change], shapes: Mapping[str, Shape]
) -> WeightsFileError:
    key = misfits[0]
    found, expected = changes[key].shape, shapes[key]
    others = f", and {len(misfits) - 1} more do not fit either" if len(misfits) > 1 else ""
    problem = Problem.OTHER_SHAPE
    if key.endswith(INPUT_LAYER) and len(expected) == 4 and expected[1] > TEXT_TO_IMAGE_CHANNELS:
        problem = Problem.INPAINTING_MODEL if expected[1] == INPAINTING_CHANNELS else Problem.EXTRA_CHANNELS
    return WeightsFileError(
        f"{file.name}: tensor {shown(changes[key].file_key)} has shape {sizes(found)}, expected {sizes(expected)} "
        f"as in the model{others}",
        problem,
    )


def metadata_prediction_type(file: WeightsFile) -> PredictionType | None:
    """What the file's metadata says; None where it says nothing. Raises WeightsFileError for an unknown word."""
    value = file.metadata.get("prediction_type")
    value = OLD_NAMES.get(value or "", value)
    for known in PREDICTION_TYPES:
        if value == known:
            return known
    if value is None:
        return None
    raise WeightsFileError(
        f'{file.name} says prediction_type "{shown(value, 40)}", expected one of {", ".join(PREDICTION_TYPES)}',
        Problem.UNKNOWN_PREDICTION_TYPE,
    )


def metadata_windows(file: WeightsFile) -> int | None:
    """What the file's metadata says; None where it says nothing. Raises WeightsFileError for anything but a number."""
    value = file.metadata.get("windows")
    if value is None:
        return None
    if value.isdecimal() and len(value) <= 4 and 0 < int(value) <= 1000:
        return int(value)
    raise WeightsFileError(
        f'{file.name} says windows "{shown(value, 40)}", expected a whole number from 1 to 1000',
        Problem.UNKNOWN_WINDOWS,
    )
