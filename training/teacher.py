"""The base model: loading it, its noise prediction, and what its VAE and text encoders make."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from perflow_core.sampling.parameterization import BasePrediction, Derivative, UNet, noise_predictor
from perflow_core.weights.unet_layout import BY_CONTEXT_WIDTH
from perflow_core.weights.weights_file import WeightsFileError, inspect

from .config import TeacherConfig
from .made_with import digest, of_module
from .stopping import TrainingError

KINDS = "a Stable Diffusion 1.5, 2.x or SDXL model that predicts noise or v"
VAE_PIXELS = 4 * 512 * 512  # to encode at a time: in float32 the first layers take 0.7 GB for a picture of 512 pixels
PIPELINES: dict[str, Any] = {
    "SD1.5": diffusers.StableDiffusionPipeline,
    "SD2.x": diffusers.StableDiffusionPipeline,
    "SDXL": diffusers.StableDiffusionXLPipeline,
}


class Prompts(NamedTuple):
    """Embeddings of B prompts: [B, 77, width]; pooled is [B, width] for SDXL, [B, 0] for others."""

    embeddings: Tensor
    pooled: Tensor


@dataclass
class Teacher:
    """A Stable Diffusion with its text encoders and VAE. Latents are in the model's own scale everywhere."""

    name: str
    architecture: str
    base_prediction: BasePrediction
    alphas_cumprod: Tensor  # [1000], float64
    unet: Any  # a UNet2DConditionModel; diffusers has no types
    pipeline: Any  # holds the text encoders and the VAE
    resolution: int
    digests: Mapping[str, str]  # of its parts as they were loaded
    dtype: torch.dtype = torch.float32
    shared: bool = False  # the student is an adapter on this UNet
    float8: bool = False  # the UNet's layers are kept in 8 bits
    resting_place: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the UNet, and cast all but the VAE, which overflows in fp16 for SDXL."""
        self.dtype = dtype
        for part in (self.unet, *self.text_encoders):
            part.requires_grad_(False).eval()
            if part.dtype != dtype:
                part.to(dtype)
        self.vae.requires_grad_(False).eval().float()
        self.unet.to(device)

    def to_float8(self) -> None:
        """Keep the frozen layers of the UNet in float8 (e4m3); autocast brings each to the precision as it computes.

        All linear layers and convolutions but the first and the last. diffusers' layerwise casting would do the same,
        but it changes a layer's weights between the forward and the backward pass, which a convolution does not bear.
        """
        largest = torch.finfo(torch.float8_e4m3fn).max
        for layer in float8_layers(self.unet):
            layer.weight.data = layer.weight.data.clamp(-largest, largest).to(torch.float8_e4m3fn)
        self.float8 = True

    @property
    def text_encoders(self) -> list[Any]:
        both = (getattr(self.pipeline, name, None) for name in ("text_encoder", "text_encoder_2"))
        return [part for part in both if part is not None]

    def rest(self) -> None:
        """Take the text encoders and the VAE off the card. They come back when they are next used."""
        self._move(self.resting_place, self.vae, *self.text_encoders)

    @staticmethod
    def _move(device: torch.device, *parts: Any) -> None:
        for part in parts:
            if part.device != device:
                part.to(device)

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Inside, a student's adapter on this UNet is off."""
        if self.shared:
            self.unet.disable_adapters()
        try:
            yield
        finally:
            if self.shared:
                self.unet.enable_adapters()

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def vae(self) -> Any:
        return self.pipeline.vae

    def unet_arguments(self, prompts: Prompts) -> dict[str, Any]:
        """The UNet's conditioning: the prompts, and for SDXL the size of the picture."""
        arguments: dict[str, Any] = {"encoder_hidden_states": prompts.embeddings}
        if prompts.pooled.shape[1]:
            time_ids = prompts.pooled.new_full((len(prompts.pooled), 6), float(self.resolution))
            time_ids[:, 2:4] = 0  # the corner that it was cut at
            arguments["added_cond_kwargs"] = {"text_embeds": prompts.pooled, "time_ids": time_ids}
        return arguments

    def network(self, unet: Any, prompts: Prompts, empty: Prompts | None, dtype: torch.dtype) -> UNet:
        """A UNet of this kind with a prompt for each row, computing in dtype; with `empty`, of one row, to guide.

        Both outputs of a guided one are made in one call.
        """
        if empty is not None:
            prompts = Prompts(*(torch.cat([e.expand_as(p), p]) for p, e in zip(prompts, empty, strict=True)))
        arguments = self.unet_arguments(Prompts(*(part.to(dtype) for part in prompts)))
        count = 1 if empty is None else 2

        def outputs(z: Tensor, T: Tensor) -> tuple[Tensor, ...]:
            m = unet(torch.cat([z] * count).to(dtype), torch.cat([T] * count), **arguments, return_dict=False)[0]
            return m.float().chunk(count)

        return outputs

    def noise_predictor(self, prompts: Prompts, empty: Prompts, guidance: float) -> Derivative:
        """eps(X, i) of the teacher, see `denoiser.noise_predictor`; prompts: a row for each row of X, empty: one."""
        network = self.network(self.unet, prompts, empty if guidance != 1 else None, self.dtype)

        def outputs(z: Tensor, i: Tensor) -> Sequence[Tensor]:
            precision = torch.autocast(self.device.type, self.dtype, enabled=self.float8)
            with torch.no_grad(), self.without_adapter(), precision:
                return network(z, i)

        alphas_cumprod = self.alphas_cumprod.to(self.device, torch.float32)
        return noise_predictor(outputs, self.base_prediction, alphas_cumprod, guidance)

    @torch.no_grad()
    def encode_pictures(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures in -1..1, [B, 3, H, W]; noise of the latents' shape draws from the posterior."""
        self._move(self.device, self.vae)
        part = max(VAE_PIXELS // pixels[0, 0].numel(), 1)
        pictures = torch.split(pixels, part)
        noises = [None] * len(pictures) if noise is None else torch.split(noise, part)
        return torch.cat([self._encode(few, drawn) for few, drawn in zip(pictures, noises, strict=True)])

    def _encode(self, pixels: Tensor, noise: Tensor | None) -> Tensor:
        encoded = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype))
        if hasattr(encoded, "latents"):  # TAESD has no posterior
            return (encoded.latents * self.vae.config.scaling_factor).float()
        posterior = encoded.latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(posterior.mean)
        return (latents * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1, [B, 3, H, W], float32 on the CPU."""
        self._move(self.device, self.vae)
        latents = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        return (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1).cpu()

    @torch.no_grad()
    def encode_prompts(self, texts: list[str]) -> Prompts:
        """Embeddings of prompts, by the pipeline that the model belongs to."""
        self._move(self.device, *self.text_encoders)
        encoded = self.pipeline.encode_prompt(
            texts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        pooled = encoded[2] if len(encoded) == 4 else encoded[0][:, 0, :0]
        return Prompts(encoded[0], pooled)


def float8_layers(unet: torch.nn.Module) -> Iterator[torch.nn.Linear | torch.nn.Conv2d]:
    """Those that `Teacher.to_float8` stores in 8 bits."""
    for name, layer in unet.named_modules():
        inner = name not in ("conv_in", "conv_out")
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and inner and not layer.weight.requires_grad:
            yield layer


def load(config: TeacherConfig, resolution: int) -> Teacher:
    """The teacher of a configuration, on the CPU in float32. Raises TrainingError."""
    path = Path(config.path).expanduser()
    if not path.exists():
        raise TrainingError(f"The teacher {path} is not there: give a .safetensors checkpoint or a diffusers folder.")
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
    alphas_cumprod = alphas_cumprod.double()
    digests = _digests(pipeline, alphas_cumprod)
    return Teacher(path.name, architecture, base_prediction, alphas_cumprod, unet, pipeline, resolution, digests)


def _digests(pipeline: Any, alphas_cumprod: Tensor) -> dict[str, str]:
    """By what they are called to users. Of the weights themselves: files may be moved, or others have their names."""
    texts: list[Any] = []
    for suffix in ("", "_2"):
        encoder, tokenizer = (getattr(pipeline, f"{part}{suffix}", None) for part in ("text_encoder", "tokenizer"))
        if encoder is not None and tokenizer is not None:
            texts += [*of_module(encoder), sorted(tokenizer.get_vocab().items()), tokenizer.model_max_length]
    return {
        "the teacher's UNet": digest(of_module(pipeline.unet)),
        "the teacher's VAE": digest(of_module(pipeline.vae)),
        "the teacher's text encoders": digest(texts),
        "the teacher's noise table": digest([alphas_cumprod.tolist()]),
    }


def _from_file(path: Path, config: str) -> Any:
    """A single-file checkpoint, by diffusers' own conversion."""
    try:
        file = inspect(path)
    except WeightsFileError as error:
        raise TrainingError(str(error)) from error
    if file.kind != "full model" or file.family not in PIPELINES:
        raise TrainingError(f"The teacher {path.name} is of another kind ({file}), expected {KINDS}: choose another.")
    source: dict[str, Any] = {"config": config, "local_files_only": True} if config else {}
    try:
        return PIPELINES[file.family].from_single_file(str(path), safety_checker=None, **source)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise TrainingError(
            f"diffusers cannot read the teacher {path.name} ({_first_line(error)}), expected a checkpoint of "
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
            f"The teacher {path} cannot be loaded ({_first_line(error)}), expected a complete diffusers folder: "
            "download it again or choose another."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".:")
