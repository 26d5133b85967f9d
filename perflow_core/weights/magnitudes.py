"""Whether a model's precision can hold what a delta adds: NaN, Inf and numbers that would become so."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..host import host_float64
from ..messages import shown
from .delta import Change
from .weights_file import WeightsFile, WeightsFileError

LARGEST_NUMBER = torch.finfo(torch.float16).max  # float32 has larger ones, but layers add up thousands of products


def check_numbers(
    file: WeightsFile,
    changes: Mapping[str, Change],
    strength: float = 1.0,
    dtypes: Mapping[str, torch.dtype] | None = None,
    known: dict[str, float] | None = None,
) -> None:
    """Raises WeightsFileError for NaN, Inf, whole numbers, and for changes that the model's precision cannot hold.

    dtypes: the model's, by its names. known: the largest number of each tensor, filled here; what is in it is not read
    again. Every other number of the changes is read once.
    """
    known = {} if known is None else known
    for model_key, change in changes.items():
        for key, tensor in change.tensors.items():
            if key not in known:
                known[key] = _largest(file, key, tensor)
        dtype = (dtypes or {}).get(model_key, torch.float32)
        most = min(LARGEST_NUMBER, torch.finfo(dtype).max) if dtype.is_floating_point else LARGEST_NUMBER
        reached = _reached(change, known, most / max(abs(strength), 1)) * abs(strength)
        if not reached <= most:
            raise WeightsFileError(
                f"{file.name}: tensor {shown(change.file_key)} times strength {strength:g} reaches {reached:.3g}, "
                f"expected at most {most:g}, beyond which the model gives NaN: lower strength, or download or make the "
                "file again."
            )


def _reached(change: Change, known: Mapping[str, float], enough: float) -> float:
    """The largest number of a change; of a low-rank one a bound, where that is within what is `enough`."""
    if change.factors is None:
        return max(known[key] for key in change.tensors)
    up, down, scale = change.factors
    scale = max(abs(scale), 1.0)  # what is multiplied out before it is scaled has to fit too
    one, other = (known[key] for key, tensor in change.tensors.items() if tensor.ndim > 1)  # not alpha
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
