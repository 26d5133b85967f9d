"""What of a delta fits a model's UNet: weights of the same shapes, and numbers that the model's precision can hold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import Problem, counted, shown, sizes, tensors_named
from ..host import host_float64
from .delta_changes import Change
from .unet_layout import INPUT_LAYER, UNetLayout
from .weights_file import WeightsFile, WeightsFileError

TEXT_TO_IMAGE_CHANNELS, INPAINTING_CHANNELS = 4, 9  # that the input layer reads
LARGEST_NUMBER = torch.finfo(torch.float16).max  # float32 has larger ones, but layers add up thousands of products


@dataclass(frozen=True)
class DeltaFit:
    """The changes of a file that fit a model, by the model's names.

    left_out: the weights whose change has another shape; without: those for which the file has no change. A full delta
    has either only with `partial`.
    """

    file: WeightsFile
    unet: UNetLayout
    changes: dict[str, Change]
    left_out: list[str]
    without: list[str]


def fit(file: WeightsFile, changes: Mapping[str, Change], unet: UNetLayout, partial: bool = False) -> DeltaFit:
    """The changes that have the shapes of the model's weights. Raises WeightsFileError, naming what does not fit.

    With partial, changes of another shape are left out and missing ones accepted. A low-rank file may always cover
    fewer weights than the model has.
    """
    expected = f"expected a delta for the {unet}"
    misfits = [key for key, change in changes.items() if change.shape != unet.shapes[key]]
    missing = [] if file.kind == "low-rank difference" else sorted(unet.shapes.keys() - changes.keys())
    if misfits and not partial:
        raise _misfit(file, misfits, changes, unet)
    if missing and not partial:
        raise WeightsFileError(
            f"{file.name} has {counted(len(changes), 'tensor')} and lacks {tensors_named(missing)}, {expected}",
            Problem.INCOMPLETE,
        )
    fitting = {key: change for key, change in changes.items() if key not in misfits}
    if not fitting:
        raise WeightsFileError(
            f"{file.name} has no tensor that fits, {expected}: choose a delta made for this kind of model."
        )
    return DeltaFit(file, unet, fitting, misfits, missing)


def _misfit(
    file: WeightsFile, misfits: Sequence[str], changes: Mapping[str, Change], unet: UNetLayout
) -> WeightsFileError:
    key = misfits[0]
    found, expected = changes[key].shape, unet.shapes[key]
    others = f", and {len(misfits) - 1} more do not fit either" if len(misfits) > 1 else ""
    problem = Problem.OTHER_SHAPE
    if key.endswith(INPUT_LAYER) and len(expected) == 4 and expected[1] > TEXT_TO_IMAGE_CHANNELS:
        problem = Problem.INPAINTING_MODEL if expected[1] == INPAINTING_CHANNELS else Problem.EXTRA_CHANNELS
    return WeightsFileError(
        f"{file.name}: tensor {shown(changes[key].file_key)} has shape {sizes(found)}, expected {sizes(expected)} "
        f"as in the model{others}",
        problem,
    )


def check_numbers(delta: DeltaFit, strength: float, largest: dict[str, float]) -> None:
    """Raises WeightsFileError for NaN, Inf, whole numbers, and for changes that the model's precision cannot hold.

    largest: the largest number of each tensor by the file's names, which is filled in here; a tensor that is in it is
    not read again.
    """
    for model_key, change in delta.changes.items():
        for key, tensor in change.tensors.items():
            if key not in largest:
                largest[key] = _largest(delta.file, key, tensor)
        dtype = delta.unet.dtypes[model_key]
        most = min(LARGEST_NUMBER, torch.finfo(dtype).max) if dtype.is_floating_point else LARGEST_NUMBER
        reached = _reached(change, largest, most / max(abs(strength), 1)) * abs(strength)
        if not reached <= most:
            raise WeightsFileError(
                f"{delta.file.name}: tensor {shown(change.file_key)} times strength {strength:g} reaches "
                f"{reached:.3g}, expected at most {most:g}, beyond which the model gives NaN: lower strength, or "
                "download or make the file again."
            )


def _reached(change: Change, largest: Mapping[str, float], enough: float) -> float:
    """The largest |dW|. Of a low-rank change an upper bound, max|up| max|down| r scale, if that is at most `enough`.

    The product up down is computed only where the bound is larger.
    """
    if change.factors is None:
        return max(largest[key] for key in change.tensors)
    up, down, _ = change.factors
    scale = max(abs(change.factors.scale), 1.0)  # what is multiplied out before it is scaled has to fit too
    one, other = (largest[key] for key, tensor in change.tensors.items() if tensor.ndim > 1)  # not alpha
    bound = one * other * down.shape[0] * scale
    if bound <= enough:
        return bound
    return float((host_float64(up).flatten(1) @ host_float64(down).flatten(1)).abs().max()) * scale


def _largest(file: WeightsFile, key: str, tensor: Tensor) -> float:
    """The largest size of its numbers. Extremes keep NaN and Inf, and take no copy as a sum would."""
    if not tensor.is_floating_point() and not key.endswith(".alpha"):
        raise WeightsFileError(
            f"{file.name}: tensor {shown(key)} holds whole numbers ({tensor.dtype}), expected floating-point ones: "
            "download or make the file again."
        )
    if tensor.element_size() == 1:
        tensor = tensor.half()  # torch finds no extremes in 8-bit floats
    largest = max(abs(float(extreme)) for extreme in tensor.aminmax()) if tensor.numel() else 0.0
    if not (largest < math.inf):
        raise WeightsFileError(
            f"{file.name}: tensor {shown(key)} holds NaN or Inf, expected finite numbers: download or make the file "
            "again."
        )
    return largest
