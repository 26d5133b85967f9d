"""LocalBlend of Prompt-to-Prompt: the edit changes the picture only where chosen words are."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d


def blend_mask(maps: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Where an edit may change the picture, from the attention that every pixel gives to the words; boolean.

    maps [n, 1 + E, h, w]: source and edits of n pictures, summed over words, layers and steps (their scale does not
    matter). 3x3 max-pool, to the latent's size, over the maximum, above the threshold; an edit's mask is its own or the
    source's. Returns [n, 1 + E, 1, *size].
    """
    pooled = max_pool2d(maps, 3, stride=1, padding=1)
    scaled = interpolate(pooled, size=size)
    peak = scaled.amax(dim=(-2, -1), keepdim=True)
    words = (scaled > threshold * peak)[:, :, None]
    return words | words[:, :1]


def blend(x: Tensor, mask: Tensor) -> Tensor:
    """x := x_source + mask (x - x_source): the source outside the mask, bit for bit.

    x [n (1 + E), C, H, W], every source followed by its edits; mask as `blend_mask` returns it.
    """
    grouped = x.view(*mask.shape[:2], *x.shape[1:])
    return torch.where(mask, grouped, grouped[:, :1]).flatten(0, 1)
