"""TAESD with fewer channels: the narrow autoencoder that is trained, and the real one that it becomes.

TAESD has 64 channels in every layer. Where a picture is large this one has fewer, and each of them is repeated until
there are 64 again (`widen`): the wide network computes the same, since a convolution that reads R copies of a channel
divides its weights by R, and ReLU and the skip connections treat copies alike.
Source: https://github.com/madebyollin/taesd (architecture).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTH = 64  # of TAESD
LATENT_CHANNELS = 4  # of the SD1.5-like model; the SD3-like one has 16
ENCODER_WIDTHS = (32, 32, 64, 64)  # from the picture's size down to an eighth of it
DECODER_WIDTHS = (64, 64, 32, 32)  # from an eighth up


def _conv(inner: int, outer: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=bias)


class Block(nn.Module):
    """Three convolutions beside a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """3 tanh(z / 3): keeps latents within 3."""

    def forward(self, z: Tensor) -> Tensor:
        return 3 * torch.tanh(z / 3)


class Encoder(nn.Sequential):
    """Pictures [B, 3, H, W] in 0..1 to latents [B, C, H/8, W/8]; names of the layers as in TAESD."""

    def __init__(self, channels: int = LATENT_CHANNELS) -> None:
        layers: list[nn.Module] = [_conv(3, ENCODER_WIDTHS[0]), Block(ENCODER_WIDTHS[0])]
        for before, width in pairwise(ENCODER_WIDTHS):
            layers += [_conv(before, width, stride=2, bias=False), *(Block(width) for _ in range(3))]
        super().__init__(*layers, _conv(ENCODER_WIDTHS[-1], channels))


class Decoder(nn.Sequential):
    """Latents [B, C, h, w] to pictures [B, 3, 8 h, 8 w], about 0..1; names of the layers as in TAESD."""

    def __init__(self, channels: int = LATENT_CHANNELS) -> None:
        layers: list[nn.Module] = [Clamp(), _conv(channels, DECODER_WIDTHS[0]), nn.ReLU()]
        for width, after in pairwise(DECODER_WIDTHS):
            layers += [*(Block(width) for _ in range(3)), nn.Upsample(scale_factor=2), _conv(width, after, bias=False)]
        super().__init__(*layers, Block(DECODER_WIDTHS[-1]), _conv(DECODER_WIDTHS[-1], 3))


def pair_of(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> tuple[Encoder, Decoder]:
    """The two narrow networks with these weights."""
    channels = decoder["1.weight"].shape[1]
    pair = Encoder(channels), Decoder(channels)
    pair[0].load_state_dict(encoder)
    pair[1].load_state_dict(decoder)
    return pair


def widen(narrow: Encoder | Decoder) -> dict[str, Tensor]:
    """The weights of the 64-channel network that computes the same, by TAESD's names."""
    wide: dict[str, Tensor] = {}
    for name, tensor in narrow.state_dict().items():
        tensor = tensor.detach()
        for dim in range(min(tensor.ndim, 2)):
            channels = tensor.shape[dim]
            if channels not in (*ENCODER_WIDTHS, *DECODER_WIDTHS):  # a picture's or a latent's own
                continue
            times = WIDTH // channels
            tensor = tensor.repeat_interleave(times, dim)
            if dim == 1:
                tensor = tensor / times
        wide[name] = tensor
    return wide
