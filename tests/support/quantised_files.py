"""State dicts in the formats that ComfyUI's own loaders quantise with."""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

TELLS_THE_FAMILY = "attn2.to_k.weight"  # by its width, which packed numbers would halve: ComfyUI could not load that


@dataclass(frozen=True)
class Format:
    """Its name in files, what else a file says of it, and how far its rounding of a sum may take it.

    rounding: of a weight that a delta is added to, relative to it; along: of all that was added, in its direction.
    """

    name: str
    rounding: float = 0.1
    along: float = 0.05
    said: dict[str, Any] = field(default_factory=dict)


ROTATED = {"convrot_groupsize": 64}  # divides the widths of small models
FORMATS = {
    "fp8": Format("float8_e4m3fn"),
    "nvfp4": Format("nvfp4", 0.2, 0.1),
    "int8": Format("int8_tensorwise"),
    "w4a8": Format("asym_w4a8_int8", 0.2, 0.1, ROTATED),  # ComfyUI 0.31 and later
}


def is_known(form: str) -> bool:
    """Whether this ComfyUI can load it."""
    from comfy.quant_ops import QUANT_ALGOS

    return FORMATS[form].name in QUANT_ALGOS


def in_format(tensors: dict[str, Tensor], form: str) -> dict[str, Tensor]:
    """As ComfyUI's own quantised files: every linear layer with its scales and a note of its format."""
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    found, told = dict(tensors), FORMATS[form]
    layout, note = QUANT_ALGOS[told.name]["comfy_tensor_layout"], json.dumps({"format": told.name} | told.said)
    for name, weight in tensors.items():
        if name.endswith(".weight") and weight.ndim == 2 and not name.endswith(TELLS_THE_FAMILY):
            quantised = QuantizedTensor.from_float(weight.float(), layout, scale="recalculate", **told.said)
            layer = name.removesuffix("weight")
            found |= quantised.state_dict(name) | {
                f"{layer}comfy_quant": torch.tensor(list(note.encode()), dtype=torch.uint8)
            }
    return found
