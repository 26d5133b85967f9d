"""LocalBlend with masks by a script, one for every pixel, and a denoiser that sees every pixel by itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Of the edits' pixels: inside the mask (1) or outside (0) after each call of the model; the last goes on to the end.
SCRIPTS = [
    ["1", "0", "10", "01", "101", "0101", "1100110", "1101"],
    ["110", "0001", "1001", "10101", "01010", "1011", "100101", "0111"],
]
SOURCES = 2  # pictures, each followed by its edits
GROUP = 1 + len(SCRIPTS)
PIXELS = len(SCRIPTS[0])

Loop = Callable[..., Tensor]


def inside(script: str, call: int) -> bool:
    return script[min(call, len(script) - 1)] == "1"


def mask(call: int) -> Tensor:
    """[n, 1 + E, 1, 1, PIXELS] after a call."""
    edits = [[inside(script, call) for script in scripts] for scripts in SCRIPTS]
    return torch.tensor([[True] * PIXELS, *edits])[None, :, None, None].expand(SOURCES, -1, -1, -1, -1)


class Denoiser:
    """x0 of [source, edits] times n, another function for every row of a group; counts its calls.

    rows [B]: for every row of the batch which one of a group it is.
    """

    def __init__(self, rows: Callable[[int], Tensor] | None = None) -> None:
        self.calls = 0
        self.rows = rows

    def __call__(self, x: Tensor, sigma: Tensor, model_options: dict[str, Any] | None = None, **_: Any) -> Tensor:
        row = torch.arange(len(x)) % GROUP if self.rows is None else self.rows(self.calls)
        self.calls += 1
        s, row = (tensor.to(x).view(-1, 1, 1, 1) for tensor in (sigma, row))
        denoised = torch.tanh((1 + 0.1 * row) * (x - row) / (1 + s)) + 0.3 * row
        said = {"denoised": denoised, "uncond_denoised": 0.9 * denoised - 0.1 * torch.tanh(x)}
        for listener in (model_options or {}).get("sampler_post_cfg_function", []):
            listener(said)
        return denoised


def start(sigmas: Tensor) -> Tensor:
    """One noise for a source and its edits."""
    x = torch.randn(SOURCES, 2, 1, PIXELS, generator=torch.Generator().manual_seed(0)).to(sigmas)
    return sigmas[0] * x.repeat_interleave(GROUP, dim=0)


def furthest(found: Tensor, source_until: Callable[[Denoiser], Tensor]) -> float:
    """Of a blended run the largest difference to what it should be, as a share of what the edits change.

    A pixel that is inside at the end is one of a run that was the source's until the call after which it stays inside,
    and the edit's from there. One that is outside is the source's. source_until(denoiser) returns a loop's result from
    the sources of `start`.
    """
    source = found[::GROUP]
    worst = 0.0
    for edit, scripts in enumerate(SCRIPTS, 1):
        for pixel, script in enumerate(scripts):
            stays = [all(inside(script, later) for later in range(call, len(script))) for call in range(len(script))]

            def rows(call: int, edit: int = edit, stays: list[bool] = stays) -> Tensor:
                return torch.full((SOURCES,), edit if stays[min(call, len(stays) - 1)] else 0)

            wanted = source_until(Denoiser(rows))
            worst = max(worst, float((found[edit::GROUP] - wanted)[..., pixel].abs().max()))
    changed = max(float((found[edit::GROUP] - source).abs().max()) for edit in range(1, GROUP))
    return worst / changed
