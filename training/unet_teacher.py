"""Stable Diffusion as a teacher: a UNet2DConditionModel of diffusers, from a checkpoint or a diffusers folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import diffusers
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from perflow_core.sampling.parameterization import BasePrediction
from perflow_core.training.base import Base
from perflow_core.weights.unet_layout import BY_CONTEXT_WIDTH
from perflow_core.weights.weights_file import WeightsFileError, inspect

from . import text_encoding
from .config import TeacherConfig
from .stopping import TrainingError
from .teacher import Prompts, Teacher, digests, first_line

CHUNK = 77  # tokens
POOLED = 1280  # numbers of SDXL's pooled embedding
VAE_FACTOR = 8  # pixels, in height and width, for a place of the latent
KINDS = "a Stable Diffusion 1.5, 2.x or SDXL model that predicts noise or v"
PIPELINES: dict[str, Any] = {
    "SD1.5": diffusers.StableDiffusionPipeline,
    "SD2.x": diffusers.StableDiffusionPipeline,
    "SDXL": diffusers.StableDiffusionXLPipeline,
}
FLOWS_ONLY = ("shift", "embedded_guidance", "text_length")  # keys of the configuration
# Where the difference of a trained PeRFlow lies: attention, feed-forward and the convolutions of the blocks.
LORA_TARGETS = [
    "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out",
    "conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv",
]  # fmt: skip


@dataclass(kw_only=True)
class UNetTeacher(Teacher):
    """SD1.5, SD2.x or SDXL. Prompts have 77 tokens for each chunk (`text_encoding`); pooled is there for SDXL."""

    base: Base
    clip_skip: int = 0  # see `text_encoding.encode`
    convolves: ClassVar[bool] = True

    @property
    def alphas_cumprod(self) -> Tensor:
        """[1000], float64."""
        return self.base.alphas_cumprod

    def latent_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return 4, height // VAE_FACTOR, width // VAE_FACTOR

    @property
    def prompt_size(self) -> tuple[int, int, int]:
        pooled = POOLED if self.unet.config.get("addition_embed_type") else 0
        return CHUNK, self.unet.config.cross_attention_dim, pooled

    @property
    def side_step(self) -> int:
        return VAE_FACTOR

    @property
    def lora_targets(self) -> list[str]:
        return LORA_TARGETS

    def conditioned(self, unet: Any, prompts: Prompts) -> Callable[[Tensor, Tensor], Tensor]:
        arguments = self.unet_arguments(prompts)  # once for all calls: whether a mask is needed waits for the device
        return lambda z, T: unet(z, T, **arguments, **self.size_arguments(prompts, z), return_dict=False)[0]

    def unet_arguments(self, prompts: Prompts) -> dict[str, Any]:
        """The prompts for the UNet.

        Those with fewer chunks are masked: a prompt's output does not depend on the others of its batch.
        """
        arguments: dict[str, Any] = {"encoder_hidden_states": prompts.embeddings}
        if prompts.embeddings.shape[1] > CHUNK and not bool(prompts.counted.all()):
            arguments["encoder_attention_mask"] = prompts.counted
        return arguments

    def size_arguments(self, prompts: Prompts, z: Tensor) -> dict[str, Any]:
        """For SDXL the pooled prompts, and with them the size of the picture, which is that of its latent z."""
        if not prompts.pooled.shape[1]:
            return {}
        # Its own height and width, the corner that it was cut at, and the height and width that are asked for.
        time_ids = prompts.pooled.new_zeros(len(prompts.pooled), 6)
        time_ids[:, ::4], time_ids[:, 1::4] = (float(VAE_FACTOR * places) for places in z.shape[-2:])
        return {"added_cond_kwargs": {"text_embeds": prompts.pooled, "time_ids": time_ids}}

    def _encode_prompts(self, texts: list[str]) -> Prompts:
        both = (getattr(self.pipeline, name, None) for name in ("tokenizer", "tokenizer_2"))
        tokenizers = [part for part in both if part is not None]
        return Prompts(*text_encoding.encode(tokenizers, self.text_encoders, texts, self.architecture, self.clip_skip))


def load(path: Path, config: TeacherConfig, resolution: int) -> UNetTeacher:
    """The teacher in float32 on the CPU. Raises TrainingError."""
    for key in FLOWS_ONLY:
        if getattr(config, key) != TeacherConfig.model_fields[key].default:
            raise TrainingError(
                f"teacher.{key} is {getattr(config, key)} for {path.name}, which is no flow model, and only those have "
                "it: leave it out."
            )
    pipeline = _from_folder(path) if path.is_dir() else _from_file(path, config.config)
    unet, scheduler = pipeline.unet, pipeline.scheduler
    architecture = BY_CONTEXT_WIDTH.get(unet.config.cross_attention_dim, "unknown")
    predicts = scheduler.config.get("prediction_type", "epsilon")
    if config.prediction_type != "auto":
        predicts = config.prediction_type
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    found = None
    if architecture == "unknown":
        found = f"its cross attention reads {unet.config.cross_attention_dim} numbers"
    elif unet.config.in_channels != 4:
        found = f"its UNet has {unet.config.in_channels} input channels"
    elif predicts not in ("epsilon", "v_prediction"):
        found = f'it predicts "{predicts}"'
    elif alphas_cumprod is None or alphas_cumprod.shape != (1000,):
        found = f"its scheduler {type(scheduler).__name__} has no table of 1000 noise levels"
    elif not 0 < float(alphas_cumprod[-1]) < 1:
        found = "its noise table ends at zero signal"
    if found or alphas_cumprod is None:
        raise TrainingError(f"The teacher {path.name} is of another kind ({found}), expected {KINDS}: choose another.")
    base_prediction: BasePrediction = "v" if predicts == "v_prediction" else "noise"
    base = Base(alphas_cumprod.double(), base_prediction)
    of_parts = digests(pipeline, unet, base.alphas_cumprod.tolist())
    made = UNetTeacher(
        name=path.name,
        architecture=architecture,
        base=base,
        unet=unet,
        pipeline=pipeline,
        resolution=resolution,
        digests=of_parts,
        clip_skip=config.clip_skip,
    )
    check_clip_skip(made)
    return made


def check_clip_skip(teacher: UNetTeacher) -> None:
    """Raises TrainingError where there is no such layer."""
    last = -1 if teacher.architecture != "SD2.x" else text_encoding.LAST["SD2.x"]  # its files leave out the one behind
    first = last + 1 - min(map(text_encoding.layers, teacher.text_encoders))
    if teacher.clip_skip and not first <= teacher.clip_skip <= last:
        raise TrainingError(
            f"teacher.clip_skip is {teacher.clip_skip}, expected {first} to {last} for {teacher.name}, or 0 for the "
            "model's own layer: choose one of these."
        )


def _from_file(path: Path, config: str) -> Any:
    """A single-file checkpoint, by diffusers' own conversion."""
    try:
        file = inspect(path)
    except WeightsFileError as error:
        raise TrainingError(str(error)) from error
    except OSError as error:
        raise TrainingError(
            f"The teacher {path} cannot be read ({error}): give a .safetensors checkpoint or a diffusers folder."
        ) from error
    if file.kind != "full model" or file.family not in PIPELINES:
        raise TrainingError(f"The teacher {path.name} is of another kind ({file}), expected {KINDS}: choose another.")
    source: dict[str, Any] = {"config": config, "local_files_only": True} if config else {}
    try:
        return PIPELINES[file.family].from_single_file(str(path), safety_checker=None, **source)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise TrainingError(
            f"diffusers cannot read the teacher {path.name} ({first_line(error)}), expected a checkpoint of "
            f"{file.family}: name a diffusers folder of that kind as teacher.config, or convert the checkpoint."
        ) from error


def _from_folder(path: Path) -> Any:
    """A diffusers folder: unet, vae, scheduler, and the tokenizers and text encoders of its kind."""
    import transformers

    if not (path / "unet" / "config.json").is_file():
        raise TrainingError(
            f"The teacher {path} has no unet/config.json, expected a diffusers folder of {KINDS}: choose another."
        )
    try:
        scheduler_config = json.loads((path / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        scheduler_class = getattr(diffusers, scheduler_config.get("_class_name", ""), DDIMScheduler)
        vae_config = json.loads((path / "vae" / "config.json").read_text(encoding="utf-8"))
        vae_class = AutoencoderTiny if vae_config.get("_class_name") == "AutoencoderTiny" else AutoencoderKL
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_pretrained(path, subfolder="unet"),
            "vae": vae_class.from_pretrained(path, subfolder="vae"),
            "scheduler": scheduler_class.from_config(scheduler_config),
            "tokenizer": transformers.CLIPTokenizer.from_pretrained(path, subfolder="tokenizer"),
            "text_encoder": transformers.CLIPTextModel.from_pretrained(path, subfolder="text_encoder"),
        }
        if (path / "text_encoder_2").is_dir():
            parts["tokenizer_2"] = transformers.CLIPTokenizer.from_pretrained(path, subfolder="tokenizer_2")
            second = transformers.CLIPTextModelWithProjection.from_pretrained(path, subfolder="text_encoder_2")
            return diffusers.StableDiffusionXLPipeline(**parts, text_encoder_2=second)
        return diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TrainingError(
            f"The teacher {path} cannot be loaded ({first_line(error)}), expected a complete diffusers folder: "
            "download it again or choose another."
        ) from error
