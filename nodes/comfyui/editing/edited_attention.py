"""Edited attention as functions that a UNet's blocks call in place of their own (`patches_replace`)."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel
from einops import rearrange, repeat
from torch import Tensor

from .edit_plan import EditedPart, sides

MAP = 16 * 16  # pixels of the official maps: self attention is edited, and words are located, where there are no more
QUARTER = 2  # how often the latent is halved at most until there: 16 x 16 of 64 x 64, and 32 x 32 of SDXL's 128 x 128

Attention = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
Options = dict[str, Any]
Blocks = dict[tuple[str, int, int], int]  # transformer blocks by name, and how often the latent was halved there


def edited_blocks(blocks: Blocks, size: tuple[int, int], parts: list[EditedPart], replaced: Options) -> Options:
    """`patches_replace` with every edited attention layer in it, around what other nodes have put there."""
    coarse = coarse_level({level for (place, *_), level in blocks.items() if place != "middle"}, size)
    kinds = {kind: dict(replaced.get(kind, {})) for kind in ("attn1", "attn2")}
    for key, level in blocks.items():
        before = {kind: layers.get(key, layers.get(key[:2])) for kind, layers in kinds.items()}
        if level >= coarse and any(part.self_active is not None for part in parts):
            kinds["attn1"][key] = partial(self_attention, parts=parts, before=before["attn1"])
        if any(part.alpha is not None or part.words is not None for part in parts):
            locates = level == coarse and key[0] != "middle"
            kinds["attn2"][key] = partial(
                cross_attention, parts=parts, before=before["attn2"], level=level if locates else None
            )
    return dict(replaced) | kinds


def coarse_level(levels: set[int], size: tuple[int, int]) -> int:
    """The finest of these levels with maps of the official size, for latents of size [H, W]."""
    fits = next(level for level in range(QUARTER + 1) if level == QUARTER or prod(sides(size, level)) <= MAP)
    return min((level for level in levels if level >= fits), default=max(levels, default=0))


def attention_blocks(unet: UNetModel) -> Blocks:
    """Every transformer block as `patches_replace` names it, and how often the latent was halved there."""
    levels, halved = [], 0
    for block in unet.input_blocks:
        halved += any(isinstance(layer, Downsample) for layer in block)
        levels.append(halved)
    stages = [("input", i, block, levels[i]) for i, block in enumerate(unet.input_blocks)]
    stages.append(("middle", 0, unet.middle_block, halved))
    stages += [("output", i, block, levels[-1 - i]) for i, block in enumerate(unet.output_blocks)]
    return {
        (place, number, index): level
        for place, number, block, level in stages
        for layer in block
        if isinstance(layer, SpatialTransformer)
        for index in range(len(layer.transformer_blocks))
    }


def self_attention(
    q: Tensor, k: Tensor, v: Tensor, extra: Options, *, parts: list[EditedPart], before: Attention | None
) -> Tensor:
    """out_t = Attn(q_s, k_s, v_t) while the step is an edited one."""
    q, k = q.clone(), k.clone()
    for part in parts:
        if part.self_active is not None:
            for tensor in (q, k):
                grouped = part.of(tensor)
                grouped[:, 1:] = torch.where(part.self_active, grouped[:, :1], grouped[:, 1:])
    return before(q, k, v, extra) if before is not None else attend(q, k, v, extra)


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    extra: Options,
    *,
    parts: list[EditedPart],
    before: Attention | None,
    level: int | None,
) -> Tensor:
    """out_t = A_s (M (alpha v_t)) + A_t ((g alpha + 1 - alpha) v_t); no map is built."""
    for part in parts:
        if level is not None and part.words is not None and part.located is not None:
            part.located.add(locate(q, k, v, extra, part), level)
    edited = [(part, *part.values(part.of(v)[:, 1:])) for part in parts if part.alpha is not None]
    if before is None:
        own = v.clone()
        for part, _, of_target in edited:
            part.of(own)[:, 1:] = of_target
        out = attend(q, k, own, extra)
    else:
        # Another node's attention is called as it is and corrected by the difference, which leaves what it adds alone.
        out = before(q, k, v, extra).clone()
        for part, _, of_target in edited:
            difference = rearrange(of_target - part.of(v)[:, 1:], "n e ... -> (n e) ...")
            _add(out, part, attend(part.edits_of(q), part.edits_of(k), difference, extra))
    for part, of_source, _ in edited:
        of_source = rearrange(of_source, "n e ... -> (n e) ...")
        _add(out, part, attend(part.source(q), part.source(k), of_source, extra))
    return out


def locate(q: Tensor, k: Tensor, v: Tensor, extra: Options, part: EditedPart) -> Tensor:
    """How much attention each pixel gives to the chosen words: [n, 1 + E, pixels]; edits count as edited.

    The sum of some columns of a map is that map times a vector, an attention like any other.
    """
    assert part.words is not None
    q, k, of_v = (part.of(tensor) for tensor in (q, k, v))
    times = of_v.shape[2] // part.words.shape[1]
    w = repeat(part.words, "row length -> row (times length) 1", times=times).expand_as(of_v)
    alone = part._replace(rows=slice(None), words=None)
    q, k, w = (rearrange(tensor, "n row ... -> (n row) ...") for tensor in (q, k, w))
    out = cross_attention(q, k, w, extra, parts=[alone], before=None, level=None)
    return alone.of(out.float().mean(-1))


def attend(q: Tensor, k: Tensor, v: Tensor, extra: Options) -> Tensor:
    """ComfyUI's own attention, called as its layers call it."""
    return optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )


def _add(out: Tensor, part: EditedPart, edits: Tensor) -> None:
    grouped = part.of(out)
    grouped[:, 1:] += edits.view_as(grouped[:, 1:])
