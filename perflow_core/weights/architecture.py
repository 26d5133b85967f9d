"""Which Stable Diffusion a UNet belongs to, told from tensor shapes, and what PeRFlow's authors trained for it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from ..sampling.parameterization import PredictionType

Shape = tuple[int, ...]

# The width of the text embeddings that cross attention reads, unlike layer names, is unique to each family.
BY_CONTEXT_WIDTH = {768: "SD1.5", 1024: "SD2.x", 2048: "SDXL"}
READS_CONTEXT = re.compile(
    r"attn2[._](processor[._])?to_k(_lora)?\.(weight|diff|lora_down\.weight|lora_A\.weight|down\.weight)$"
)
TRAINED_PREDICTION: dict[str, PredictionType] = {"SD1.5": "diff_eps", "SD2.x": "velocity", "SDXL": "ddim_eps"}
TRAINED_WINDOWS = 4
INPUT_LAYER = "input_blocks.0.0.weight"  # ComfyUI's name of the one that an inpainting model has wider


@dataclass(frozen=True)
class UNet:
    """What there is to know about a model's UNet; its weights go by the names of the program that runs it.

    shapes, dtypes: as they are in computing, of quantised weights too. names: every name that a state dict may use for
    a weight, without prefix -> the program's. modules: every name that a LoRA file may use for a layer -> the program's
    name of its weight.
    """

    shapes: dict[str, Shape]
    dtypes: dict[str, torch.dtype]
    names: dict[str, str]
    modules: dict[str, str]

    @cached_property
    def family(self) -> str:
        return architecture(self.shapes)


def architecture(shapes: Mapping[str, Shape]) -> str:
    """The family, "SD1.5", "SD2.x" or "SDXL", from the shapes of a UNet or a difference; else "unknown"."""
    for key, shape in shapes.items():
        if READS_CONTEXT.search(key) and len(shape) == 2:
            return BY_CONTEXT_WIDTH.get(shape[1], "unknown")
    return "unknown"
