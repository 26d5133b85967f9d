"""What a delta file says of itself: its parameterization, its windows, and what the model predicts that it is for."""

from ..errors import Problem
from ..messages import shown
from ..sampling.parameterization import BASE_PREDICTIONS, PREDICTION_TYPES, BasePrediction, PredictionType
from ..sampling.windows import MOST_WINDOWS
from .weights_file import WeightsFile, WeightsFileError

OLD_NAMES = {"epsilon": "diff_eps"}  # what the official code called it before 2024-04-25


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


def metadata_base_prediction(file: WeightsFile) -> BasePrediction | None:
    """What the base predicts that the weights are a change of; None where the file does not say it."""
    value = file.metadata.get("base_prediction")
    return next((known for known in BASE_PREDICTIONS if known == value), None)


def metadata_windows(file: WeightsFile) -> int | None:
    """What the file's metadata says; None where it says nothing. Raises WeightsFileError for anything but a number."""
    value = file.metadata.get("windows")
    if value is None:
        return None
    if value.isdecimal() and len(value) <= 4 and 0 < int(value) <= MOST_WINDOWS:
        return int(value)
    raise WeightsFileError(
        f'{file.name} says windows "{shown(value, 40)}", expected a whole number from 1 to {MOST_WINDOWS}',
        Problem.UNKNOWN_WINDOWS,
    )
