"""Which Stable Diffusion a UNet belongs to, told from tensor shapes, and what PeRFlow's authors trained for it."""

import re
from collections.abc import Mapping

from .parameterization import PredictionType

Shape = tuple[int, ...]

# The width of the text embeddings that cross attention reads, unlike layer names, is unique to each family.
BY_CONTEXT_WIDTH = {768: "SD1.5", 1024: "SD2.x", 2048: "SDXL"}
READS_CONTEXT = re.compile(
    r"attn2[._](processor[._])?to_k(_lora)?\.(weight|diff|lora_down\.weight|lora_A\.weight|down\.weight)$"
)
TRAINED_PREDICTION: dict[str, PredictionType] = {"SD1.5": "diff_eps", "SD2.x": "velocity", "SDXL": "ddim_eps"}
TRAINED_WINDOWS = 4


def architecture(shapes: Mapping[str, Shape]) -> str:
    """The family, "SD1.5", "SD2.x" or "SDXL", from the shapes of a UNet or a difference; else "unknown"."""
    for key, shape in shapes.items():
        if READS_CONTEXT.search(key) and len(shape) == 2:
            return BY_CONTEXT_WIDTH.get(shape[1], "unknown")
    return "unknown"
