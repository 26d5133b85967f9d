"""The averaged weights in a training's state file, by name, without the network that they belong to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .autoencoder import Decoder, Encoder
from .device import placed

Tensors = dict[str, Tensor]


def averaged(file: Path, *parts: str) -> list[Tensors]:
    """The exponential averages of the networks `parts` ("unet"; "encoder", "decoder") in a state file."""
    state = torch.load(file, weights_only=True, mmap=True, map_location="cpu")
    means = iter(state["state"]["ema"])
    return [{name: next(means) for name in state[part]} for part in parts]


def autoencoder(file: Path) -> tuple[Encoder, Decoder]:
    """The narrow autoencoder from its training's state, on the device."""
    encoder, decoder = Encoder(), Decoder()
    for module, weights in zip((encoder, decoder), averaged(file, "encoder", "decoder"), strict=True):
        module.load_state_dict(weights)
        placed(module).eval().requires_grad_(False)
    return encoder, decoder
