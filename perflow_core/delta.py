"""Reading a PeRFlow delta: dW = W_perflow - W_base for every tensor of a UNet.

Names are mapped to the model's, tensors are passed on untouched (memory-mapped views stay views), and every tensor of
the file is accounted for: it has its place in the model, or an error names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .architecture import Shape, architecture
from .parameterization import PREDICTION_TYPES, PredictionType

MODEL_PREFIX = "diffusion_model."
FILE_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.")
OLD_NAMES = {"epsilon": "diff_eps"}  # what the authors' code called it before 2024-04-25


class DeltaError(ValueError):
    """A file that cannot be applied; the text names the file, what was found, what was expected and what to do."""


@dataclass(frozen=True)
class Delta:
    """Tensors by the model's own names, and what the file says of itself (None where it says nothing)."""

    tensors: dict[str, Tensor]
    architecture: str
    prediction_type: PredictionType | None
    windows: int | None


def read_delta(
    file: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None,
    model_shapes: Mapping[str, Shape],
    diffusers_names: Mapping[str, str],
) -> Delta:
    """The delta in a file's tensors, for the model at hand.

    model_shapes: the UNet's tensors by the model's names ("diffusion_model..."); diffusers_names: diffusers name -> the
    model's name without that prefix. Both layouts of names are read, with or without a prefix.
    Raises DeltaError where file and model do not fit tensor for tensor, and for a full model given as a delta.
    """
    named = {key: _model_key(key, model_shapes, diffusers_names) for key in tensors}
    _check_fit(file, named, tensors, model_shapes)
    _check_is_difference(file, tensors)
    metadata = metadata or {}
    return Delta(
        {model_key: tensors[key] for key, model_key in named.items()},
        architecture(model_shapes),
        _prediction_type(file, metadata.get("prediction_type")),
        _windows(file, metadata.get("windows")),
    )


def _model_key(key: str, model_shapes: Mapping[str, Shape], diffusers_names: Mapping[str, str]) -> str:
    """The model's name for a tensor of the file; "" where the model has none."""
    bare = next((key.removeprefix(prefix) for prefix in FILE_PREFIXES if key.startswith(prefix)), key)
    model_key = MODEL_PREFIX + diffusers_names.get(bare, bare)
    return model_key if model_key in model_shapes else ""


def _check_fit(
    file: str, named: Mapping[str, str], tensors: Mapping[str, Tensor], model_shapes: Mapping[str, Shape]
) -> None:
    found = architecture({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    wanted = architecture(model_shapes)
    expected = f"a delta of all {len(model_shapes)} UNet tensors of this {wanted} model"
    if found != wanted and found != "unknown":
        raise DeltaError(
            f"{file} is made for {found}, expected {expected}: "
            f"choose a delta for {wanted}, or load a {found} checkpoint."
        )
    unknown = [key for key, model_key in named.items() if not model_key]
    if unknown:
        raise DeltaError(
            f"{file} has {_some(unknown)}, which the model does not have, expected {expected}: "
            "choose a PeRFlow delta made for this kind of model."
        )
    for key, model_key in named.items():
        if tuple(tensors[key].shape) != model_shapes[model_key]:
            raise DeltaError(
                f"{file}: tensor {key} has shape {_shape(tensors[key].shape)}, expected "
                f"{_shape(model_shapes[model_key])} as in the model: choose a delta made for this kind of model."
            )
    missing = sorted(model_shapes.keys() - named.values())
    if missing:
        raise DeltaError(
            f"{file} has {len(named)} tensors and lacks {_some(missing)}, expected {expected}: "
            "download or make it again."
        )


def _check_is_difference(file: str, tensors: Mapping[str, Tensor]) -> None:
    """A norm's weights lie near 1 in a model and near 0 in a difference."""
    for key, tensor in tensors.items():
        if key.endswith(("out.0.weight", "conv_norm_out.weight")) and tensor.float().abs().mean() > 0.5:
            raise DeltaError(
                f"{file} is a full model (its norm weights {key} are near 1), expected a difference of weights "
                "(near 0): load it with Load Diffusion Model and use Model Sampling PeRFlow."
            )


def _prediction_type(file: str, value: str | None) -> PredictionType | None:
    value = OLD_NAMES.get(value or "", value)
    for known in PREDICTION_TYPES:
        if value == known:
            return known
    if value is None:
        return None
    raise DeltaError(
        f'{file} says prediction_type "{value}", expected one of {", ".join(PREDICTION_TYPES)}: '
        "choose it on the node instead of auto, after asking who made the file."
    )


def _windows(file: str, value: str | None) -> int | None:
    if value is None:
        return None
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise DeltaError(f'{file} says windows "{value}", expected a whole number above 0: ask who made the file.')


def _some(keys: list[str]) -> str:
    """Say "3 tensors (a, b, ...)"; two names are enough to recognise a layout."""
    names = ", ".join(keys[:2]) + (", ..." if len(keys) > 2 else "")
    return f"{len(keys)} tensor{'s' if len(keys) > 1 else ''} ({names})"


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape))
