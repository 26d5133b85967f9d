"""Between a VAE's latents and those of the model, which diffusers' VAEs say in their configuration."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class LatentScale(NamedTuple):
    """The model's latents are (the VAE's - mean) * factor: numbers, or one for each channel.

    frames: the VAE is one of videos, so that pictures and latents have a dimension of time, the third.
    """

    mean: Tensor | float
    factor: Tensor | float
    frames: bool

    @classmethod
    def of(cls, vae: Any) -> "LatentScale":
        config = vae.config
        if "scaling_factor" in config:
            return cls(config.get("shift_factor") or 0.0, config.scaling_factor, False)
        mean, std = (
            torch.tensor(values, device=vae.device, dtype=vae.dtype).reshape(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return cls(mean, 1 / std, True)

    def to_model(self, latents: Tensor) -> Tensor:
        return (latents - self.mean) * self.factor

    def to_vae(self, latents: Tensor) -> Tensor:
        return latents / self.factor + self.mean
