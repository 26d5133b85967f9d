"""The delta of a student, as Apply PeRFlow Delta reads it."""

from pathlib import Path

import torch
from torch import Tensor

from perflow_core.weights.extraction import Extraction
from perflow_core.weights.safetensors_writer import write_new

from .errors import TrainingError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ADAPTER = ".default.weight"  # peft's name of the one adapter there is


def full_delta(student: dict[str, Tensor], base: dict[str, Tensor], rank: int, dtype: torch.dtype) -> Extraction:
    """W_student - W_base by diffusers' names: whole tensors under plain names, or compressed as LoRA pairs."""
    extraction = Extraction(rank, 0.0)
    for key, weight in base.items():
        dW = (student[key].float().cpu() - weight.float()).contiguous()
        extraction.add(_lora_name(key) if rank else key, dW, dtype)
    if not rank:  # the official files have the plain names
        extraction.tensors = dict(zip(base, extraction.tensors.values(), strict=True))
    return extraction


def adapter_delta(student: dict[str, Tensor], dtype: torch.dtype) -> Extraction:
    """A LoRA's pairs, by the names that Load LoRA and Apply PeRFlow Delta know."""
    extraction = Extraction(0, 0.0)
    for key, down in student.items():
        if not key.endswith(".lora_A" + ADAPTER):
            continue
        module = key.removesuffix(".lora_A" + ADAPTER)
        up = student[f"{module}.lora_B{ADAPTER}"]
        name = _lora_name(f"{module}.weight").removesuffix(".weight")
        extraction.tensors[f"{name}.lora_up.weight"] = up.to("cpu", dtype).contiguous()
        extraction.tensors[f"{name}.lora_down.weight"] = down.to("cpu", dtype).contiguous()
        extraction.tensors[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
        extraction.ranks.append(down.shape[0])
    return extraction


def _lora_name(key: str) -> str:
    """The name of a diffusers weight in LoRA files, which every loader knows: lora_unet_mid_block_resnets_0_conv1."""
    module, _, kind = key.rpartition(".")
    return f"lora_unet_{module.replace('.', '_')}.{kind}"


def write(extraction: Extraction, path: Path, **said: str) -> None:
    """Write the file whole; one of that name is from the same step of the same run and stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_new(extraction.tensors, path, extraction.metadata(**said))
    except FileExistsError:
        return
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error}): free disk space and start again.") from error
