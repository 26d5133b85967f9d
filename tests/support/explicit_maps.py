"""Prompt-to-Prompt as the authors do it: every attention map is built, edited and multiplied with the values.

LocalBlend too: kept maps say where the words are, and a loop blends its latent after every step.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

Layers = list[tuple[str, int]]  # attention blocks as ComfyUI names them: ("input", 3)


class LocalBlend:
    """The authors' class of this name: of the kept maps those of some words, summed over layers and calls."""

    def __init__(self, words: Tensor, threshold: float, layers: Layers, size: int):
        self.words, self.threshold, self.layers, self.size = words, threshold, layers, size
        self.maps: Tensor | None = None
        self.masks: list[Tensor] = []  # [1 + E, H, W] after every call of the UNet

    def keep(self, A: Tensor) -> None:
        """A [1 + E, heads, pixels, L] of one layer, as edited."""
        A = (A * self.words.to(A)[:, None, None]).sum(-1).mean(1).unflatten(-1, (self.size, self.size))
        self.maps = A if self.maps is None else self.maps + A

    def mask(self, x: Tensor) -> Tensor:
        assert self.maps is not None
        mask = interpolate(max_pool2d(self.maps[:, None], 3, 1, 1), size=x.shape[2:])
        mask = mask / mask.amax((2, 3), keepdim=True)
        mask = mask.gt(self.threshold).float()
        return (mask[:1] + mask).clamp(max=1)

    def __call__(self, x: Tensor) -> Tensor:
        """x after a step."""
        self.masks.append(self.mask(x))
        return self.again(x)

    def again(self, x: Tensor) -> Tensor:
        """By the last mask."""
        return x[:1] + self.masks[-1] * (x - x[:1])


def with_explicit_maps(
    model: ModelPatcher, M: Tensor, g: Tensor, cross: range, own: range, blend: LocalBlend | None = None
) -> ModelPatcher:
    """A clone for one source and its edits, sampled in one chunk of prompts; the steps whose maps are edited.

    The self attention of all layers: for latents of no more than 16 x 16.
    """
    edited = model.clone()

    def step(extra: dict[str, Any]) -> int:
        """A call between two levels belongs to the step around it."""
        return int((extra["sample_sigmas"][1:-1] * (1 + 1e-4) >= extra["sigmas"][0]).sum())

    def positive(extra: dict[str, Any]) -> int:
        return extra["cond_or_uncond"].index(0) if 0 in extra["cond_or_uncond"] else -1

    def maps(q: Tensor, k: Tensor, heads: int) -> Tensor:
        q, k = (tensor.unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (q, k))
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)

    def apply(A: Tensor, v: Tensor) -> Tensor:
        return (A @ v.unflatten(-1, (A.shape[1], -1)).transpose(1, 2)).transpose(1, 2).flatten(2)

    def edit(q: Tensor, k: Tensor, extra: dict[str, Any], steps: range, rule: Any) -> tuple[Tensor, Tensor]:
        """All maps, and of them those of the positive prompts."""
        A = maps(q, k, extra["n_heads"])
        size = len(M) + 1
        chunk = A[positive(extra) * size :][:size] if positive(extra) >= 0 else A[:0]
        if len(chunk) and step(extra) in steps:
            chunk[1:] = rule(chunk[:1], chunk[1:])
        return A, chunk

    def cross_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        rule = lambda s, t: s @ M[:, None].to(s) + t * g[:, None, None].to(s)  # noqa: E731
        A, chunk = edit(q, k, extra, cross, rule)
        if blend is not None and len(chunk) and extra["block"] in blend.layers:
            blend.keep(chunk)
        return apply(A, v)

    def self_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        return apply(edit(q, k, extra, own, lambda s, t: s.expand_as(t))[0], v)

    for place, count in (("input", 12), ("middle", 1), ("output", 12)):
        for number in range(count):
            edited.set_model_attn2_replace(cross_attention, place, number)
            edited.set_model_attn1_replace(self_attention, place, number)
    return edited


class BlendedLoop:
    """Loops of k-diffusion's signature that blend the latent after every step, and what they step to on the way.

    Those that keep something of earlier steps blend it too: outside the mask an edit is the source in every respect.
    They forget it every `afresh` steps.
    """

    def __init__(self, blend: LocalBlend, rule: str, afresh: int):
        self.blend, self.rule, self.afresh = blend, getattr(self, rule), afresh

    def __call__(self, model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, **_: Any) -> Tensor:
        ones, kept = x.new_ones(len(x)), []
        self.random = torch.Generator().manual_seed(extra_args["seed"] + 1)  # ComfyUI's, on a CPU
        for i, (s, s_next) in enumerate(pairwise(sigmas.tolist())):
            if i % self.afresh == 0:
                kept.clear()
            x = self.rule(lambda x, s: model(x, s * ones, **extra_args), x, s, s_next, kept)
            kept[:] = [(self.blend.again(tensor), number) for tensor, number in kept]
        return x

    def euler(self, model: Any, x: Tensor, s: float, s_next: float, kept: list[Any]) -> Tensor:
        return self.blend(x + (s_next - s) * (x - model(x, s)) / s)

    def euler_ancestral(self, model: Any, x: Tensor, s: float, s_next: float, kept: list[Any]) -> Tensor:
        """Every row of the batch has noise of its own."""
        up = s_next * (1 - (s_next / s) ** 2) ** 0.5
        down = (s_next**2 - up**2) ** 0.5
        noise = torch.randn(x.shape, dtype=x.dtype, generator=self.random) if s_next > 0 else 0
        return self.blend(x + (down - s) * (x - model(x, s)) / s + up * noise)

    def heun(self, model: Any, x: Tensor, s: float, s_next: float, kept: list[Any]) -> Tensor:
        d = (x - model(x, s)) / s
        x_2 = self.blend(x + (s_next - s) * d)
        if s_next == 0:
            return x_2
        x, d = self.blend.again(x), self.blend.again(d)
        d_2 = (x_2 - model(x_2, s_next)) / s_next
        return self.blend(x + (s_next - s) * (d + d_2) / 2)

    def dpm_2(self, model: Any, x: Tensor, s: float, s_next: float, kept: list[Any]) -> Tensor:
        d = (x - model(x, s)) / s
        if s_next == 0:
            return self.blend(x + (s_next - s) * d)
        middle = (s * s_next) ** 0.5
        x_2 = self.blend(x + (middle - s) * d)
        x = self.blend.again(x)
        return self.blend(x + (s_next - s) * (x_2 - model(x_2, middle)) / middle)

    def ab2(self, model: Any, x: Tensor, s: float, s_next: float, kept: list[Any]) -> Tensor:
        """Two-step Adams-Bashforth; its first step is Euler's."""
        h, d = s_next - s, (x - model(x, s)) / s
        d_before, h_before = kept[-1] if kept else (d, h)
        kept.append((d, h))
        return self.blend(x + h * (d + h / (2 * h_before) * (d - d_before)))

    def dpmpp_2m(self, model: Any, x: Tensor, s: float, s_next: float, kept: list[Any]) -> Tensor:
        """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), lambda = -log sigma."""
        x0 = model(x, s)
        D = x0
        if kept and s_next > 0:
            x0_before, s_before = kept[-1]
            D = x0 + math.log(s / s_next) / math.log(s_before / s) / 2 * (x0 - x0_before)
        kept.append((x0, s))
        return self.blend(s_next / s * x + (1 - s_next / s) * D)
