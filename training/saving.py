"""The delta of a student, as Apply PeRFlow Delta reads it."""

from pathlib import Path

import torch
from torch import Tensor

from perflow_core.weights.extraction import Extraction
from perflow_core.weights.lora_file import lora_name, lora_of_peft, ranks
from perflow_core.weights.safetensors_writer import write_new

from .config import SaveConfig
from .stopping import TrainingError


def write(path: Path, weights: dict[str, Tensor], base: dict[str, Tensor], config: SaveConfig, **facts: str) -> None:
    """Write the file whole; one of that name is from the same step of the same run and stays.

    weights: the student's; base: the ones that a whole student began with, none for a LoRA. Raises TrainingError.
    """
    dtype: torch.dtype = getattr(torch, config.precision)
    if base:
        extraction = _full_delta(weights, base, config.rank, dtype)
    else:
        tensors = lora_of_peft(weights, dtype)
        extraction = Extraction(0, 0.0, tensors=tensors, ranks=ranks(tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_new(extraction.tensors, path, extraction.metadata(**facts))
    except FileExistsError:
        return
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error}): free disk space and start again.") from error


def _full_delta(student: dict[str, Tensor], base: dict[str, Tensor], rank: int, dtype: torch.dtype) -> Extraction:
    """W_student - W_base by diffusers' names: whole tensors under plain names, or compressed as LoRA pairs."""
    extraction = Extraction(rank, 0.0)
    for key, weight in base.items():
        dW = (student[key].float().cpu() - weight.float()).contiguous()
        layer, _, kind = key.rpartition(".")
        extraction.add(f"{lora_name(layer)}.{kind}" if rank else key, dW, dtype)
    if not rank:  # the official files have the plain names
        extraction.tensors = dict(zip(base, extraction.tensors.values(), strict=True))
    return extraction
