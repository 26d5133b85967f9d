"""What a weights file is, from its header and one norm tensor, without reading the rest."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import safetensors
from torch import Tensor

from ..errors import UnusableError, shown
from .unet_layout import Shape, family

Kind = Literal["difference", "low-rank difference", "full model", "text encoder", "unknown"]

LOW_RANK_MARKS = (".lora_", "_lora.", ".hada_", ".lokr_", ".oft_", ".boft_", ".a1.weight")
WHOLE_MARKS = (".diff", ".diff_b")  # ends of names
FLOATS = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")  # as headers write them
TEXT_ENCODER_MARKS = ("text_model.", "cond_stage_model.", "conditioner.embedders.", "transformer.resblocks.")
LAST_NORM = re.compile(r"(^|\.)(out\.0|conv_norm_out)\.(weight|diff)$")  # near 1 in a model, near 0 in a difference
LARGEST_NORM = 1 << 16  # numbers; a larger tensor of that name is no norm and is not read


class WeightsFileError(UnusableError):
    """A file that is not what it should be; the text names it."""


@dataclass(frozen=True)
class WeightsFile:
    """What is in a .safetensors file, by its header and one norm.

    dtypes: as the header writes them -> how many tensors; norm: the mean size of the last norm's numbers, or None where
    the file has no such tensor.
    """

    name: str
    shapes: dict[str, Shape]
    dtypes: dict[str, int]
    metadata: dict[str, str]
    bytes: int
    norm: float | None

    @cached_property
    def family(self) -> str:
        """By the shapes where they tell, else what the file says of itself."""
        return family(self.shapes, shown(self.metadata.get("architecture", "unknown"), 40))

    @cached_property
    def kind(self) -> Kind:
        if any(mark in key for key in self.shapes for mark in LOW_RANK_MARKS):
            return "low-rank difference"
        if self.norm is not None and self.norm > 0.5:
            return "full model"
        if self.norm is not None or any(key.endswith(WHOLE_MARKS) for key in self.shapes):
            return "difference"
        if any(mark in key for key in self.shapes for mark in TEXT_ENCODER_MARKS):
            return "text encoder"
        return "unknown"

    @cached_property
    def has_lora_keys(self) -> bool:
        """Whether its tensors are named as in LoRA files, low-rank or not."""
        return any(key.endswith(WHOLE_MARKS) or mark in key for key in self.shapes for mark in LOW_RANK_MARKS)

    @property
    def rank(self) -> int:
        """The largest rank of a low-rank file; 0 for others."""
        downs = [shape[0] for key, shape in self.shapes.items() if key.endswith(("lora_down.weight", "lora_A.weight"))]
        return max(downs, default=0)

    def __str__(self) -> str:
        rank = f" of rank {self.rank}" if self.rank else ""
        return (
            f"{self.family} {self.kind}{rank}, {len(self.shapes)} tensors, {', '.join(self.dtypes)}, "
            f"{self.bytes / 1e6:.0f} MB"
        )


def inspect(path: Path) -> WeightsFile:
    """Read the header, and one norm tensor where a model and a difference differ in it.

    Raises WeightsFileError for a file that is not whole or not .safetensors; OSError for one that cannot be opened.
    """
    size = path.stat().st_size
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
            shapes = {key: tuple(piece.get_shape()) for key, piece in slices.items()}
            dtypes = Counter(piece.get_dtype() for piece in slices.values())
            metadata = dict(file.metadata() or {})
            norms = (key for key, shape in shapes.items() if LAST_NORM.search(key) and _is_norm(shape, slices[key]))
            norm = next((_size(file.get_tensor(key)) for key in norms), None)
    except safetensors.SafetensorError as error:
        raise WeightsFileError(
            f"{shown(path.name)} ({size} bytes) cannot be read as .safetensors ({shown(str(error))}), expected a whole "
            f"file in that format: {_advice(path)}"
        ) from error
    return WeightsFile(shown(path.name), shapes, dict(dtypes), metadata, size, norm)


def by_weight(file: str, weights: Mapping[str, str], advice: str = "make the file again") -> dict[str, str]:
    """The model's name -> the file's, from the other way round. Raises WeightsFileError for one weight under two names.

    advice: how the error ends.
    """
    keys: dict[str, str] = {}
    for key, weight in weights.items():
        if weight in keys:
            raise WeightsFileError(
                f"{file} holds the weight {weight} twice, as {shown(keys[weight])} and as {shown(key)}, expected it "
                f"once: {advice}."
            )
        keys[weight] = key
    return keys


def _is_norm(shape: Shape, piece: Any) -> bool:
    return len(shape) == 1 and shape[0] <= LARGEST_NORM and piece.get_dtype() in FLOATS


def _size(norm: Tensor) -> float:
    """The mean size of its numbers, without the NaN and Inf that a damaged file may hold."""
    sizes = norm.float().abs()
    return float(sizes[sizes.isfinite()].mean())


def _advice(path: Path) -> str:
    """What to do, by the first bytes of the file."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, so download the file itself and not the page about it."
    if head.startswith((b"pk\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "it is a pickle (.ckpt, .pt) under another name, which can run code; get the .safetensors version."
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, so download the real file."
    return "download it again, or make it again."
