"""Whether a file is a delta at all, and one for a family of models, told before its tensors are read."""

from ..errors import Problem
from ..messages import MOST_DIMENSIONS, shown, sizes
from .pcm_loras import looks_like_pcm
from .weights_file import FLOATS, WeightsFile, WeightsFileError

INTEGERS = ("I8", "I16", "I32", "I64", "U8")  # readable, but good for the alpha of a LoRA only
LARGEST_SIZE = 2**31


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
