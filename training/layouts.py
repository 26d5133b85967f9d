"""A teacher's parts on the meta device: their real sizes without their numbers, in a moment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

from perflow_core.weights.weights_file import WeightsFileError, inspect

from . import student
from .buckets import Size
from .config import TeacherConfig
from .stopping import TrainingError
from .teacher import float8_layers
from .unet_teacher import LORA_TARGETS, VAE_FACTOR

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
POOLED = 1280  # numbers of SDXL's pooled embedding


class UnknownLayoutError(TrainingError):
    """The sizes of a teacher cannot be told without loading it."""


@dataclass(frozen=True)
class Layout:
    """unet, vae: configurations (JSON); text_numbers: weights of the text encoders; file_bytes: a checkpoint's size."""

    unet: str
    vae: str
    text_numbers: int
    file_bytes: int

    def vae_on_meta(self) -> Any:
        return _vae(self.vae)

    def student(self) -> Any:
        """A whole one, in float32."""
        return _unet(self.unet, torch.float32)

    def teacher(self, dtype: torch.dtype, float8: bool, rank: int = 0) -> Any:
        """The frozen UNet, with a student's adapter in float32 where there is a rank."""
        return _unet(self.unet, dtype, float8, rank, frozen=True)

    @property
    def context(self) -> int:
        found = json.loads(self.unet).get("cross_attention_dim")
        if not isinstance(found, int):
            raise ValueError(f"its UNet has cross_attention_dim {found}, expected one number")
        return found

    @property
    def pooled(self) -> int:
        return POOLED if json.loads(self.unet).get("addition_embed_type") else 0

    def inputs(self, batch: int, size: Size) -> dict[str, Any]:
        """Of the UNet's forward, on the meta device."""
        with torch.device("meta"):
            inputs: dict[str, Any] = {
                "sample": torch.empty(batch, 4, size.height // VAE_FACTOR, size.width // VAE_FACTOR),
                "timestep": torch.empty(batch),
                "encoder_hidden_states": torch.empty(batch, 77, self.context),
            }
            if self.pooled:
                added = {"text_embeds": torch.empty(batch, self.pooled), "time_ids": torch.empty(batch, 6)}
                inputs["added_cond_kwargs"] = added
        return inputs


def of_teacher(config: TeacherConfig) -> Layout:
    """Raises UnknownLayoutError."""
    path = Path(config.path)
    try:
        layout = _of_folder(path) if path.is_dir() else _of_file(path, config.config)
        _ = layout.context
        return layout
    except (OSError, ValueError, KeyError, TypeError, WeightsFileError) as error:
        raise UnknownLayoutError(
            f"What the teacher {path} needs cannot be told ({' '.join(str(error).split())}), expected a checkpoint or "
            "a whole diffusers folder of Stable Diffusion 1.5, 2.x or SDXL: choose one."
        ) from error


def _of_folder(path: Path) -> Layout:
    import transformers

    texts = 0
    for name in ("text_encoder", "text_encoder_2"):
        if (path / name).is_dir():
            config = transformers.CLIPTextConfig.from_pretrained(path / name)
            kind = transformers.CLIPTextModelWithProjection if name.endswith("2") else transformers.CLIPTextModel
            texts += _text_numbers(kind, config.to_json_string())
    return Layout(_text(path / "unet"), _text(path / "vae"), texts, 0)


def _of_file(path: Path, config: str) -> Layout:
    file = inspect(path)
    given = Path(config)
    unet = _text(given / "unet") if config else json.dumps(UNETS.get(file.family, {}))
    vae = _text(given / "vae") if config else json.dumps(VAE)
    numbers = {name: torch.Size(shape).numel() for name, shape in file.shapes.items()}
    found, vaes = (_below(numbers, prefix) for prefix in (UNET_PREFIX, VAE_PREFIX))
    expected = sum(weight.numel() for weight in _unet(unet, torch.float32).parameters())
    if found != expected:
        raise ValueError(f"its UNet has {found} numbers and one of its kind, {file.family}, {expected}")
    return Layout(unet, vae, sum(numbers.values()) - found - vaes, file.bytes)


def _below(numbers: Mapping[str, int], prefix: str) -> int:
    return sum(count for name, count in numbers.items() if name.startswith(prefix))


def _text(folder: Path) -> str:
    return (folder / "config.json").read_text(encoding="utf-8")


@lru_cache(maxsize=8)
def _text_numbers(kind: Any, config: str) -> int:
    import transformers

    with torch.device("meta"):
        model = kind(transformers.CLIPTextConfig(**json.loads(config)))
    return sum(weight.numel() for weight in model.parameters())


@lru_cache(maxsize=8)
def _unet(config: str, dtype: torch.dtype, float8: bool = False, rank: int = 0, frozen: bool = False) -> Any:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(json.loads(config)).requires_grad_(not frozen)
        torch.nn.Module.to(unet, dtype)  # diffusers' own warns of what concerns no UNet here
        if rank:
            student.add_adapter(unet, rank, LORA_TARGETS)
    for weight in student.trainable(unet):
        weight.data = weight.data.float()
    for layer in float8_layers(unet) if float8 else ():
        layer.weight.data = layer.weight.data.to(torch.float8_e4m3fn)
    return unet


@lru_cache(maxsize=8)
def _vae(config: str) -> Any:
    values = json.loads(config)
    kind: Any = AutoencoderTiny if values.get("_class_name") == "AutoencoderTiny" else AutoencoderKL
    with torch.device("meta"):
        return kind.from_config(values)
