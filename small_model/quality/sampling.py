"""Pictures of a cell: ComfyUI's samplers or the pack's, from noise that depends on the picture's number alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..networks.text_model import embeddings, features
from .cells import SAMPLERS, SD15, WINDOWS, Cell, Family

LATENT = (4, 16, 16)


def noise_of(numbers: Sequence[int], shape: Sequence[int] = LATENT) -> Tensor:
    """[n, *shape], the same for a number in every cell."""
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(n)) for n in numbers])


class Texts:
    """Captions as conditionings. The text model adds nothing in its layers, so its first and last are all of it."""

    def __init__(self) -> None:
        import comfy.sd1_clip

        self._tokenizer = comfy.sd1_clip.SDTokenizer()
        self._words, self._positions = embeddings()
        self._tokens = cache(lambda text: [pair[0] for pair in self._tokenizer.tokenize_with_weights(text)[0]])

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        """ComfyUI's, 77 for each caption."""
        return [self._tokens(text) for text in captions]

    def __call__(self, captions: Sequence[str]) -> list[Any]:
        """CONDITIONING with a row for every caption."""
        return [[features(torch.tensor(self.tokens(captions)), self._words, self._positions), {}]]


def together(texts: Sequence[Any]) -> list[Any]:
    """One entry of CONDITIONING with the rows of several of CLIP Text Encode, as ComfyUI evens out their lengths."""
    longest = math.lcm(*(text.shape[1] for text, _ in texts))
    rows = torch.cat([text.repeat(1, longest // text.shape[1], 1) for text, _ in texts])
    pooled = [options["pooled_output"] for _, options in texts if "pooled_output" in options]
    return [rows, {"pooled_output": torch.cat(pooled)} if pooled else {}]


def sample(
    nodes: Any, model: Any, cell: Cell, noise: Tensor, positive: Any, negative: Any, cfg: float, family: Family = SD15
) -> Tensor:
    """LATENT samples [n, ...] of one batch; checks that the model was called as often as the table will say."""
    import comfy.patcher_extension
    import comfy.sample

    calls = 0

    def count(executor: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return executor(*args, **kwargs)

    counted = model.clone()
    counted.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "quality", count)
    start, options = torch.zeros_like(noise), dict(disable_pbar=True, seed=0)
    if cell.model.delta and family.by_nodes:
        sampler, sigmas = perflow_sampling(nodes, counted, cell)
        found = comfy.sample.sample_custom(counted, noise, cfg, sampler, sigmas, positive, negative, start, **options)
    else:
        names = SAMPLERS[cell.sampler]
        found = comfy.sample.sample(counted, noise, cell.steps, cfg, *names, positive, negative, start, **options)
    if calls != cell.calls:
        raise AssertionError(f"{cell.sampler} with {cell.steps} steps called the model {calls} times, not {cell.calls}")
    return found


def with_delta(nodes: Any, model: Any, delta: str, align: bool = True) -> Any:
    """The MODEL with a delta of that name, by the pack's node with what it has as defaults."""
    inputs = dict(strength=1.0, prediction_type="auto", windows=0, align_steps=align)
    return nodes["PeRFlowApplyDelta"].execute(model, delta, **inputs).result[0]


def perflow_sampling(nodes: Any, model: Any, cell: Cell) -> tuple[Any, Tensor]:
    """SAMPLER and SIGMAS by the pack's nodes; with fewer steps than windows stock euler, which does not divide them."""
    import comfy.samplers

    inputs = dict(denoise=1.0, end="zero", steps_per_window="")
    sigmas = nodes["PeRFlowWindowSchedule"].execute(model, cell.steps, **inputs).result[0]
    if cell.steps < WINDOWS:
        return comfy.samplers.sampler_object(cell.sampler), sigmas
    return nodes["PeRFlowSampler"].execute(cell.sampler).result[0], sigmas
