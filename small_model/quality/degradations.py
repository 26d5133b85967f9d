"""What generated pictures suffer from and drawn ones do not: blur, grain and the marks of the autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..networks.autoencoder import Decoder, Encoder


@torch.no_grad()
def decoded(pictures: Tensor, encoder: Encoder, decoder: Decoder, noise: float = 0.0) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1 through the autoencoder; `noise` is the largest deviation added to a latent."""
    z = encoder(pictures.contiguous(memory_format=torch.channels_last))
    if noise:
        z = z + noise * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z)
    return decoder(z).clamp(0, 1)


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """By a Gaussian of that many pixels."""
    reach = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).repeat(3, 1, 1, 1)
    wide = functional.pad(pictures, (reach,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(wide, kernel, groups=3), kernel.mT, groups=3)


def grainy(pictures: Tensor, deviation: float) -> Tensor:
    return (pictures + deviation * torch.randn_like(pictures)).clamp(0, 1)
