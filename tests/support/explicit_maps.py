"""Prompt-to-Prompt as the authors do it: every attention map is built, edited and multiplied with the values."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor


def with_explicit_maps(model: ModelPatcher, M: Tensor, g: Tensor, cross: range, own: range) -> ModelPatcher:
    """A clone for one source and its edits, sampled in one chunk of prompts; the steps whose maps are edited.

    The self attention of all layers: for latents of no more than 16 x 16.
    """
    edited = model.clone()

    def step(extra: dict[str, Any]) -> int:
        return int((extra["sample_sigmas"] - extra["sigmas"][0]).abs().argmin())

    def positive(extra: dict[str, Any]) -> int:
        return extra["cond_or_uncond"].index(0) if 0 in extra["cond_or_uncond"] else -1

    def maps(q: Tensor, k: Tensor, heads: int) -> Tensor:
        q, k = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (q, k))
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)

    def apply(A: Tensor, v: Tensor) -> Tensor:
        return (A @ v.unflatten(-1, (A.shape[1], -1)).transpose(1, 2)).transpose(1, 2).flatten(2)

    def replaced(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any], steps: range, edit: Any) -> Tensor:
        A = maps(q, k, extra["n_heads"])
        size = len(M) + 1
        if step(extra) in steps and positive(extra) >= 0:
            chunk = A[positive(extra) * size :][:size]
            chunk[1:] = edit(chunk[:1], chunk[1:])
        return apply(A, v)

    def cross_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        return replaced(q, k, v, extra, cross, lambda s, t: s @ M[:, None].to(s) + t * g[:, None, None].to(s))

    def self_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        return replaced(q, k, v, extra, own, lambda s, t: s.expand_as(t))

    for place, count in (("input", 12), ("middle", 1), ("output", 12)):
        for number in range(count):
            edited.set_model_attn2_replace(cross_attention, place, number)
            edited.set_model_attn1_replace(self_attention, place, number)
    return edited
