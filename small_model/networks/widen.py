"""A narrow UNet as a wide one that computes the same: every channel R times, side by side.

Narrow channel c becomes the wide channels R c, ..., R c + R - 1. A layer that reads R copies divides its weights by R;
norms see the same mean and variance, since a group of copies has those of the group. In attention the width of a head
grows R times and q k with it, while the scale 1 / sqrt(width) shrinks by sqrt(R), so to_q is divided by sqrt(R).
All of it is linear in the weights, so the widened difference of two narrow models is the difference of the wide ones.
"""

from __future__ import annotations

import math

from torch import Tensor

TIMES = 5  # 64 channels become SD1.5's 320


def widened(name: str, tensor: Tensor) -> Tensor:
    """One weight of the wide UNet, by the name that diffusers has for it."""
    if not name.startswith("conv_out."):  # whose output is the latent's channels
        tensor = tensor.repeat_interleave(TIMES, 0)
    if tensor.ndim == 1 or name.startswith("conv_in.") or name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
        return tensor  # no input, or one that is not channels: the latent, the text
    if name == "time_embedding.linear_1.weight":
        wide = tensor.new_zeros(len(tensor), TIMES * tensor.shape[1])
        wide[:, ::TIMES] = tensor  # the narrow sinusoid's frequencies are every R-th of the wide one's
        return wide
    tensor = tensor.repeat_interleave(TIMES, 1) / TIMES
    return tensor / math.sqrt(TIMES) if name.endswith("to_q.weight") else tensor
