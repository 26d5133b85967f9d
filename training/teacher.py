"""The base model: what its network says to a trajectory, and what its VAE and text encoders make.

`unet_teacher` and `flow_teacher` are the two kinds.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from perflow_core.sampling.parameterization import Derivative, UNet
from perflow_core.training.base import Base, FlowBase
from perflow_core.training.trajectory import TeacherTrajectory
from perflow_core.weights.transformer_names import TransformerNames

from .config import TeacherConfig
from .latent_scale import LatentScale
from .made_with import digest, of_module
from .stopping import TrainingError

VAE_PIXELS = 4 * 512 * 512  # to encode at a time: in float32 the first layers take 0.7 GB for a picture of 512 pixels


class Prompts(NamedTuple):
    """Embeddings of B prompts: [B, tokens, width], tokens that do not count being zeros; pooled: one vector for each
    whole prompt, [B, width], of width 0 for models that take none.
    """

    embeddings: Tensor
    pooled: Tensor

    @property
    def counted(self) -> Tensor:
        """Which tokens count: [B, tokens], bool."""
        return self.embeddings.any(dim=-1)

    @property
    def lengths(self) -> list[int]:
        """How many tokens of each count, before what fills it up; without numbers (on the meta device) all of them."""
        count, tokens = self.embeddings.shape[:2]
        return [tokens] * count if self.embeddings.is_meta else self.counted.sum(dim=1).tolist()

    def filled_up(self, tokens: int) -> "Prompts":
        """With zeros behind up to so many tokens, where there are fewer."""
        missing = max(tokens - self.embeddings.shape[1], 0)
        return self._replace(embeddings=torch.nn.functional.pad(self.embeddings, (0, 0, 0, missing)))


@dataclass(frozen=True)
class Switched:
    """Weights that teacher and student share, such as norms, with the values that each of them has of them."""

    weights: list[Tensor]
    teachers: list[Tensor]
    students: list[Tensor]

    def to_student(self, on: bool) -> None:
        if self.weights:
            torch._foreach_copy_(self.weights, self.students if on else self.teachers)


@dataclass
class Teacher(ABC):
    """A model with its text encoders and VAE. Latents are in the model's own scale everywhere.

    "UNet" stands for the transformers of flow models too.
    """

    name: str
    architecture: str  # as ComfyUI calls it
    base: Base | FlowBase
    unet: Any  # diffusers has no types
    pipeline: Any  # holds the text encoders and the VAE
    resolution: int
    digests: Mapping[str, str]  # of its parts as they were loaded
    dtype: torch.dtype = torch.float32
    shared: bool = False  # the student is an adapter on this UNet
    beside: Switched | None = None  # the adapter, where it began with a delta that has more
    float8: bool = False  # the UNet's layers are kept in 8 bits
    resting_place: torch.device = field(default_factory=lambda: torch.device("cpu"))
    convolves: ClassVar[bool] = False  # so that optimizer.channels_last makes it faster

    def to(self, device: torch.device, dtype: torch.dtype, but_unet: bool = False) -> None:
        """Move the UNet if it is not to stay, and cast all but the VAE, which overflows in fp16 for SDXL."""
        self.dtype = dtype
        for part in (self.unet, *self.text_encoders):
            part.requires_grad_(False).eval()
            if part.dtype != dtype:
                cast(part, dtype)
        self.vae.requires_grad_(False).eval().float()
        if not but_unet:
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
        parts = (getattr(self.pipeline, f"text_encoder{suffix}", None) for suffix in ("", "_2", "_3"))
        return [part for part in parts if part is not None]

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
        """Inside, a student's adapter on this UNet is off, and what the student has beside it."""
        if self.shared:
            self.unet.disable_adapters()
        if self.beside:
            self.beside.to_student(False)
        try:
            yield
        finally:
            if self.shared:
                self.unet.enable_adapters()
            if self.beside:
                self.beside.to_student(True)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def vae(self) -> Any:
        return self.pipeline.vae

    def network(self, unet: Any, prompts: Prompts, empty: Prompts | None, dtype: torch.dtype) -> UNet:
        """A UNet of this kind with a prompt for each row, computing in dtype; with `empty`, of one row, to guide.

        Both outputs of a guided one are made in one call. It is called as the core does, at timesteps in 0..1000.
        """
        if empty is not None:
            tokens = max(part.embeddings.shape[1] for part in (prompts, empty))
            prompts, empty = prompts.filled_up(tokens), empty.filled_up(tokens)
            prompts = Prompts(*(torch.cat([e.expand_as(p), p]) for p, e in zip(prompts, empty, strict=True)))
        conditioned = self.conditioned(unet, Prompts(*(part.to(dtype) for part in prompts)))
        count = 1 if empty is None else 2

        def outputs(z: Tensor, T: Tensor) -> tuple[Tensor, ...]:
            return conditioned(torch.cat([z] * count).to(dtype), torch.cat([T] * count)).float().chunk(count)

        return outputs

    def derivative(
        self, trajectory: TeacherTrajectory, prompts: Prompts, empty: Prompts, guidance: float
    ) -> Derivative:
        """d(X, i) of the teacher for a trajectory; prompts: a row for each row of X, empty: one."""
        network = self.network(self.unet, prompts, empty if guidance != 1 else None, self.dtype)

        def outputs(z: Tensor, T: Tensor) -> Sequence[Tensor]:
            precision = torch.autocast(self.device.type, self.dtype, enabled=self.float8)
            with torch.no_grad(), self.without_adapter(), precision:
                return network(z, T)

        return self.base.derivative(outputs, trajectory, guidance)

    def drawn(self, noise: Tensor, prompts: Prompts, empty: Prompts, guidance: float, steps: int) -> Tensor:
        """X at the end of the whole path from noise, [B, ...]: the teacher's own pictures."""
        trajectory = self.base.trajectory(self.base.chord(1), steps).to(self.device, torch.float32)
        return trajectory.sample(self.derivative(trajectory, prompts, empty, guidance), noise)

    @torch.no_grad()
    def encode_pictures(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents of pictures in -1..1, [B, 3, H, W]; noise of the latents' shape draws from the posterior."""
        self._move(self.device, self.vae)
        part = max(VAE_PIXELS // pixels[0, 0].numel(), 1)
        pictures = torch.split(pixels, part)
        noises = [None] * len(pictures) if noise is None else torch.split(noise, part)
        return torch.cat([self._encode(few, drawn) for few, drawn in zip(pictures, noises, strict=True)])

    def _encode(self, pixels: Tensor, noise: Tensor | None) -> Tensor:
        scale, pixels = LatentScale.of(self.vae), pixels.to(self.vae.device, self.vae.dtype)
        encoded = self.vae.encode(pixels[:, :, None] if scale.frames else pixels)
        if hasattr(encoded, "latents"):  # TAESD has no posterior
            return scale.to_model(encoded.latents).float()
        posterior = encoded.latent_dist
        latents = posterior.mean
        if noise is not None:
            latents = latents + posterior.std * noise.to(latents).reshape(latents.shape)
        latents = scale.to_model(latents).float()
        of_one = self.latent_shape_at(*pixels.shape[-2:])
        return latents.reshape(-1, *of_one) if scale.frames else latents

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Pictures in 0..1, [B, 3, H, W], float32 on the CPU; of a video its first."""
        self._move(self.device, self.vae)
        scale, latents = LatentScale.of(self.vae), latents.to(self.vae.device, self.vae.dtype)
        if scale.frames:
            latents = latents.reshape(*latents.shape[:2], -1, *latents.shape[-2:])
        pictures = self.vae.decode(scale.to_vae(latents)).sample
        return ((pictures[:, :, 0] if scale.frames else pictures).float() / 2 + 0.5).clamp(0, 1).cpu()

    @torch.no_grad()
    def encode_prompts(self, texts: list[str]) -> Prompts:
        """Embeddings of prompts, zeros behind the shorter ones."""
        self._move(self.device, *self.text_encoders)
        return self._encode_prompts(texts)

    @abstractmethod
    def _encode_prompts(self, texts: list[str]) -> Prompts:
        """With the text encoders on the device."""

    @abstractmethod
    def conditioned(self, unet: Any, prompts: Prompts) -> Callable[[Tensor, Tensor], Tensor]:
        """The network's output for z [B, ...] at timesteps T [B] in 0..1000, with a prompt for each row."""

    @property
    def names(self) -> TransformerNames | None:
        """Those of the weights in a delta; None stands for diffusers' own, which every loader reads of a UNet."""
        return None

    @property
    def facts(self) -> dict[str, str]:
        """What else a delta's file says of its teacher."""
        return {}

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of the latents of a square picture of the resolution."""
        return self.latent_shape_at(self.resolution, self.resolution)

    @abstractmethod
    def latent_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        """Of the latents of a picture of so many pixels."""

    @property
    @abstractmethod
    def prompt_size(self) -> tuple[int, int, int]:
        """The most tokens of a prompt (of Stable Diffusion in one part), the width of each, and that of the pooled."""

    @property
    @abstractmethod
    def side_step(self) -> int:
        """The sides of pictures are multiples of it, in pixels."""

    @property
    @abstractmethod
    def lora_targets(self) -> list[str]:
        """The layers that an adapter is for, by the ends of their names."""


def float8_layers(unet: torch.nn.Module) -> Iterator[torch.nn.Linear | torch.nn.Conv2d]:
    """Those that `Teacher.to_float8` stores in 8 bits."""
    for name, layer in unet.named_modules():
        inner = name not in ("conv_in", "conv_out")
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and inner and not layer.weight.requires_grad:
            yield layer


def cast(part: Any, dtype: torch.dtype) -> None:
    """All but what diffusers keeps in float32 as it loads a model, such as Wan's scales and shifts."""
    kept = set(getattr(part, "_keep_in_fp32_modules", None) or ())
    for name, tensor in [*part.named_parameters(), *part.named_buffers()]:
        if tensor.is_floating_point() and not kept & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)


def load(config: TeacherConfig, resolution: int) -> Teacher:
    """The teacher of a configuration, on the CPU. Raises TrainingError."""
    from . import flow_teacher, unet_teacher  # each of them is a Teacher

    path = existing(config)
    kind = flow_teacher if flow_teacher.is_one(path, config) else unet_teacher
    return kind.load(path, config, resolution)


def existing(config: TeacherConfig) -> Path:
    """Its path. Raises TrainingError."""
    path = Path(config.path)
    if not path.exists():
        raise TrainingError(f"The teacher {path} is not there: give a .safetensors checkpoint or a diffusers folder.")
    return path


def digests(pipeline: Any, unet: Any, noise_table: object) -> dict[str, str]:
    """By what they are called to users. Of the weights themselves: files may be moved, or others have their names."""
    texts: list[Any] = []
    for suffix in ("", "_2", "_3"):
        encoder, tokenizer = (getattr(pipeline, f"{part}{suffix}", None) for part in ("text_encoder", "tokenizer"))
        if encoder is not None and tokenizer is not None:
            texts += [*of_module(encoder), sorted(tokenizer.get_vocab().items()), tokenizer.model_max_length]
    return {
        "the teacher's UNet": digest(of_module(unet)),
        "the teacher's VAE": digest(of_module(pipeline.vae)),
        "the teacher's text encoders": digest(texts),
        "the teacher's noise table": digest([noise_table]),
    }


def first_line(error: Exception) -> str:
    """Of a library's text, for a sentence of ours."""
    return str(error).strip().split("\n")[0].rstrip(".:")
