"""A delta matched to a model's UNet: every change has a weight of its shape, or an error names what does not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import Problem
from ..messages import shown, sizes, tensor_count, tensors_named
from .architecture import INPUT_LAYER, Shape, UNet
from .delta import Change
from .weights_file import WeightsFile, WeightsFileError

TEXT_TO_IMAGE_CHANNELS, INPAINTING_CHANNELS = 4, 9  # that the input layer reads


@dataclass(frozen=True)
class Delta:
    """The changes that fit, by the model's names; with `partial` also the names of those of another shape, and of the
    weights for which the file has none.
    """

    changes: dict[str, Change]
    left_out: list[str]
    without: list[str]


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
