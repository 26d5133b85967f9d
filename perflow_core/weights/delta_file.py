"""The header of a delta file: whether it is one, for which models, and how it was trained."""

from ..errors import MOST_DIMENSIONS, Problem, shown, sizes
from ..sampling.parameterization import BASE_PREDICTIONS, PREDICTION_TYPES, BasePrediction, PredictionType
from ..sampling.windows import MOST_WINDOWS, parse_edges
from .pcm_loras import looks_like_pcm
from .weights_file import FLOATS, WeightsFile, WeightsFileError

INTEGERS = ("I8", "I16", "I32", "I64", "U8")  # readable, but good for the alpha of a LoRA only
LARGEST_SIZE = 2**31
OLD_NAMES = {"epsilon": "diff_eps"}  # what the official code called it before 2024-04-25


def check_is_delta(file: WeightsFile, family: str) -> None:
    """Raises WeightsFileError for a file that holds no weight difference, or one for another family of models."""
    expected = f"expected a PeRFlow delta for this {family} model"
    if not file.shapes:
        raise WeightsFileError(f"{file.name} holds no tensors, {expected}: download or make it again.")
    for key, shape in file.shapes.items():
        if len(shape) > MOST_DIMENSIONS or max(shape, default=0) >= LARGEST_SIZE:
            raise WeightsFileError(
                f"{file.name}: tensor {shown(key)} has shape {sizes(shape)}, expected one that a model can have: "
                "download or make the file again."
            )
    if unreadable := [dtype for dtype in file.dtypes if dtype not in FLOATS + INTEGERS]:
        raise WeightsFileError(
            f"{file.name} holds {', '.join(unreadable)} numbers, {expected} in F16, BF16 or F32: download or make it "
            "again in one of those."
        )
    if file.kind == "text encoder":
        raise WeightsFileError(f"{file.name} is a text encoder, {expected}: choose another file.")
    if file.kind == "full model":
        known = file.family != "unknown"
        found = f"is a full {file.family} model" if known else "is a full model of an unknown kind"
        raise WeightsFileError(
            f"{file.name} {found} (its norm weights are near 1; a difference has them near 0), {expected}"
            + ("" if known else ": choose another file."),
            Problem.FULL_MODEL if known else None,
        )
    if file.kind == "low-rank difference" and "prediction_type" not in file.metadata and looks_like_pcm(file.shapes):
        raise WeightsFileError(
            f"{file.name} is a LoRA for the layers that PCM and LCM LoRAs change, and it does not mention PeRFlow, "
            f"{expected}",
            Problem.OTHER_LORA,
        )
    if file.family not in (family, "unknown"):
        raise WeightsFileError(
            f"{file.name} is made for {file.family}, {expected}: choose a delta for {family}, or another "
            f"model, of the kind {file.family}."
        )


def metadata_prediction_type(file: WeightsFile) -> PredictionType | None:
    """The metadata's prediction_type, None where it has none. Raises WeightsFileError for an unknown word."""
    value = file.metadata.get("prediction_type")
    value = OLD_NAMES.get(value or "", value)
    known = next((known for known in PREDICTION_TYPES if known == value), None)
    if known is None and value is not None:
        raise WeightsFileError(
            f'{file.name} says prediction_type "{shown(value, 40)}", expected one of {", ".join(PREDICTION_TYPES)}',
            Problem.UNKNOWN_PREDICTION_TYPE,
        )
    return known


def metadata_base_prediction(file: WeightsFile) -> BasePrediction | None:
    """What the delta's base predicts, None where the metadata does not have it."""
    value = file.metadata.get("base_prediction")
    return next((known for known in BASE_PREDICTIONS if known == value), None)


def metadata_windows(file: WeightsFile) -> int | None:
    """The metadata's windows, None where it has none. Raises WeightsFileError for anything but a number."""
    value = file.metadata.get("windows")
    if value is None:
        return None
    if value.isdecimal() and len(value) <= 4 and 0 < int(value) <= MOST_WINDOWS:
        return int(value)
    raise WeightsFileError(
        f'{file.name} says windows "{shown(value, 40)}", expected a whole number from 1 to {MOST_WINDOWS}',
        Problem.UNKNOWN_WINDOWS,
    )


def metadata_edges(file: WeightsFile) -> list[float] | None:
    """The sigmas of the window edges of a flow model's delta, None where the metadata has none.

    Raises WeightsFileError for anything but numbers that fall inside 1..0.
    """
    value = file.metadata.get("edges")
    try:
        return None if value is None else parse_edges(value or ",")
    except ValueError as error:
        raise WeightsFileError(
            f'{file.name} says edges "{shown(value or "", 40)}", expected sigmas with commas between them that fall '
            "and lie between 1 and 0: download or make the file again."
        ) from error


def check_base(file: WeightsFile, predicts: BasePrediction | None) -> None:
    """Raises WeightsFileError where one of model and delta is a flow model's and the other is not."""
    trained_on = metadata_base_prediction(file)
    if trained_on is not None and (trained_on == "flow") != (predicts == "flow"):
        model, delta = ("a flow", "another") if predicts == "flow" else ("no flow", "a flow")
        raise WeightsFileError(
            f"{file.name} was trained on {delta} model, and this is {model} model, expected a delta of the same kind "
            "of model: choose another delta, or another model."
        )
