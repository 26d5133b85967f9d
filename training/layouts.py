"""A teacher's parts on the meta device: their real sizes without their numbers, in a moment."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

from perflow_core.training.base import Base
from perflow_core.weights.weights_file import WeightsFileError, inspect

from . import flow_teacher
from .config import TeacherConfig
from .stopping import TrainingError
from .teacher import Teacher, existing
from .unet_teacher import UNetTeacher

# The published UNets, by what differs from diffusers' defaults; for checkpoints, which have no configuration.
UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": {"cross_attention_dim": 768},
    "SD2.x": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "SDXL": {
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
NO_TABLE = Base(torch.linspace(0.99, 0.01, 1000, dtype=torch.float64), "noise")  # no size depends on it


class UnknownLayoutError(TrainingError):
    """The sizes of a teacher cannot be told without loading it."""


class Layout(NamedTuple):
    """teacher: on the meta device, in the precisions that it is loaded in; file_bytes: a single file's size."""

    teacher: Teacher
    file_bytes: int


class Numbers(torch.nn.Module):
    """Stands for a checkpoint's text encoders, of which only the number of their numbers is read."""

    def __init__(self, count: int):
        super().__init__()
        self.all = torch.nn.Parameter(torch.empty(count, device="meta"))

    @property
    def dtype(self) -> torch.dtype:
        return self.all.dtype


def of_teacher(config: TeacherConfig, resolution: int) -> Layout:
    """Raises UnknownLayoutError, and TrainingError for what cannot be a teacher."""
    path = existing(config)
    if flow_teacher.is_one(path, config):
        of_file = 0 if path.is_dir() else path.stat().st_size
        return Layout(flow_teacher.load(path, config, resolution, of_sizes=True), of_file)
    try:
        return _of_folder(path, resolution) if path.is_dir() else _of_file(path, config.config, resolution)
    except (OSError, ValueError, KeyError, TypeError, WeightsFileError) as error:
        raise UnknownLayoutError(
            f"What the teacher {path} needs cannot be told ({' '.join(str(error).split())}), expected a checkpoint or "
            "a whole diffusers folder of Stable Diffusion 1.5, 2.x or SDXL, or a whole one of a flow model: choose one."
        ) from error


def _of_folder(path: Path, resolution: int) -> Layout:
    texts = {}
    for name in ("text_encoder", "text_encoder_2"):
        if (path / name).is_dir():
            kind = transformers.CLIPTextModelWithProjection if name.endswith("2") else transformers.CLIPTextModel
            with torch.device("meta"):
                texts[name] = kind(transformers.CLIPTextConfig.from_pretrained(path / name))
    return Layout(_teacher(path, resolution, _unet(_values(path / "unet")), _vae(_values(path / "vae")), texts), 0)


def _of_file(path: Path, config: str, resolution: int) -> Layout:
    file = inspect(path)
    given = Path(config)
    unet = _unet(_values(given / "unet") if config else UNETS.get(file.family, {}))
    vae = _vae(_values(given / "vae") if config else VAE)
    numbers = {name: torch.Size(shape).numel() for name, shape in file.shapes.items()}
    found, vaes = (_below(numbers, prefix) for prefix in (UNET_PREFIX, VAE_PREFIX))
    expected = sum(weight.numel() for weight in unet.parameters())
    if found != expected:
        raise ValueError(f"its UNet has {found} numbers and one of its kind, {file.family}, {expected}")
    texts = {"text_encoder": Numbers(sum(numbers.values()) - found - vaes)}
    return Layout(_teacher(path, resolution, unet, vae, texts), file.bytes)


def _teacher(path: Path, resolution: int, unet: Any, vae: Any, texts: Mapping[str, torch.nn.Module]) -> UNetTeacher:
    return UNetTeacher(
        name=path.name,
        architecture="",
        base=NO_TABLE,
        unet=unet,
        pipeline=SimpleNamespace(vae=vae, **texts),
        resolution=resolution,
        digests={},
    )


def _below(numbers: Mapping[str, int], prefix: str) -> int:
    return sum(count for name, count in numbers.items() if name.startswith(prefix))


def _values(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _unet(values: Mapping[str, Any]) -> Any:
    """A whole one, in float32."""
    context = values.get("cross_attention_dim")
    if not isinstance(context, int):
        raise ValueError(f"its UNet has cross_attention_dim {context}, expected one number")
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(dict(values))


def _vae(values: Mapping[str, Any]) -> Any:
    kind: Any = AutoencoderTiny if values.get("_class_name") == "AutoencoderTiny" else AutoencoderKL
    with torch.device("meta"):
        return kind.from_config(dict(values))
