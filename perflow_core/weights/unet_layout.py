"""A network without its numbers: its family (SD1.5, SDXL, SD3, ...), its shapes, and the names that files use.

"UNet" stands for the transformers of flow models too.
"""

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
    r"(input|middle|output|down|mid|up)_blocks?[._].*attn2[._](processor[._])?to_k(_lora)?\.(weight|diff|lora_down\.weight|lora_A\.weight|down\.weight)$"
)
INPUT_LAYER = "input_blocks.0.0.weight"  # ComfyUI's name of the one that an inpainting model has wider
FILE_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.")

# What PeRFlow's authors trained for each family.
TRAINED_PREDICTION: dict[str, PredictionType] = {"SD1.5": "diff_eps", "SD2.x": "velocity", "SDXL": "ddim_eps"}
TRAINED_WINDOWS = 4


@dataclass(frozen=True)
class UNetLayout:
    """The weights of a model's UNet, by the names of the program that runs it.

    shapes, dtypes: of each weight in computing (a quantised one is stored in others). names, modules: from a name in a
    file to the program's name of the weight; in `names` every name that a state dict may have for a weight, without
    prefix, in `modules` every name that a LoRA file may have for a layer.
    """

    shapes: dict[str, Shape]
    dtypes: dict[str, torch.dtype]
    names: dict[str, str]
    modules: dict[str, str]
    architecture: str = "unknown"  # what the program calls the model, for one that is no Stable Diffusion

    @cached_property
    def family(self) -> str:
        return family(self.shapes, self.architecture)

    def __str__(self) -> str:
        return f"{len(self.shapes)} UNet tensors of this {self.family} model"


def family(shapes: Mapping[str, Shape], architecture: str = "unknown") -> str:
    """The family, "SD1.5", "SD2.x" or "SDXL", from the shapes of a UNet or a difference; else `architecture`."""
    for key, shape in shapes.items():
        if READS_CONTEXT.search(key) and len(shape) == 2:
            return BY_CONTEXT_WIDTH.get(shape[1], architecture)
    return architecture


def without_prefix(key: str) -> str:
    """A tensor's name in its UNet, whatever a file puts before it."""
    return next((key.removeprefix(prefix) for prefix in FILE_PREFIXES if key.startswith(prefix)), key)
