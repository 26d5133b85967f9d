"""Piecewise solvers in k-diffusion's signature: no step crosses a window edge.

The path bends at every edge. A step that would cross one is split there, a multistep solver forgets its history, and a
second-order one looks at the end of the step from inside the window: at the edge itself the UNet answers for the next.
Without a chord (a model that is not PeRFlow) each is the ordinary solver of its name.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .chord import WindowChord
from .windows import EDGE_TOLERANCE, edges_between

REFINEMENTS = 6  # model calls of a rising step, beside the first: fewer lose more, thirty can run away (docs/method.md)

Denoiser = Callable[..., Tensor]
Callback = Callable[[dict[str, Any]], None]


class Step(NamedTuple):
    """One model interval, in plain numbers."""

    i: int  # the caller's step that it is (a part of)
    sigma: float
    sigma_next: float
    probe: float  # the lowest sigma of the step that is still in its window; 0 where there is none
    fresh: bool  # no step before it in this window
    look: float  # where the first model call looks from: sigma, or just inside the window of a rising step
    last: bool = True  # no part of the caller's step after it

    @property
    def reported(self) -> int | None:
        """The caller's step for its callback. Of a step in parts the last is reported: its x0 is the newest."""
        return self.i if self.last else None


def sample_euler(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    *,
    chord: WindowChord | None = None,
) -> Tensor:
    """X' = X + (sigma' - sigma) d with d = (X - x0) / sigma: the official PeRFlow step, one model call.

    x of shape [B, ...], sigmas of shape [n + 1]; model(x, sigma[B], **extra_args) returns x0. Returns x. A rising list
    goes from the picture back to its noise: X' that the falling step would bring to X, X' = X + (sigma' - sigma) d(X'),
    by REFINEMENTS fixed-point iterations from the slope at X. `disable` belongs to the signature (progress bars) and
    is not used here.
    """
    slope = Slope(model, x, extra_args, callback)
    for step in window_steps(sigmas, chord):
        h = step.sigma_next - step.sigma
        d = slope(x, step.look, step.reported)
        for _ in range(REFINEMENTS if h > 0 else 0):
            d = slope(x + h * d, step.sigma_next)
        x = x + h * d
    return x


def sample_heun(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    *,
    chord: WindowChord | None = None,
) -> Tensor:
    """X' = X + h (d + (d' - d) / (2 theta)), d' taken at sigma + theta h; two model calls. Else as `sample_euler`.

    theta = 1 is Heun's method (Karras et al. 2022, Algorithm 1). A step that ends on a window edge takes d' one
    timestep inside the window instead, which keeps the second order. Without a second point the step is Euler's.
    """
    slope = Slope(model, x, extra_args, callback)
    for step in window_steps(sigmas, chord):
        h = step.sigma_next - step.sigma
        d = slope(x, step.look, step.reported)
        if step.probe > 0:
            d_probe = slope(x + (step.probe - step.sigma) * d, step.probe)
            d = d + (d_probe - d) * h / (2 * (step.probe - step.sigma))
        x = x + h * d
    return x


def sample_ab2(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    *,
    chord: WindowChord | None = None,
) -> Tensor:
    """X' = X + h ((1 + h / 2h_) d - h / 2h_ d_): two-step Adams-Bashforth with step sizes h, one model call.

    d_ and h_ are the slope and size of the step before; the first step in every window is Euler's. As `sample_euler`
    otherwise.
    """
    slope = Slope(model, x, extra_args, callback)
    d_before, h_before = None, 0.0
    for step in window_steps(sigmas, chord):
        h = step.sigma_next - step.sigma
        d = slope(x, step.look, step.reported)
        if step.fresh or d_before is None:
            x = x + h * d
        else:
            x = x + h * (d + h / (2 * h_before) * (d - d_before))
        d_before, h_before = d, h
    return x


SOLVERS: dict[str, Callable[..., Tensor]] = {"euler": sample_euler, "heun": sample_heun, "ab2": sample_ab2}


def window_steps(sigmas: Tensor, chord: WindowChord | None) -> list[Step]:
    """The steps from each sigma to the next, those that cross a window edge split there."""
    levels = sigmas.tolist()
    pairs = list(pairwise(levels))
    if chord is None:
        return [Step(i, a, b, b, i == 0, a) for i, (a, b) in enumerate(pairs)]
    chord = chord.to("cpu", torch.float64)
    T = chord.path_timesteps(sigmas)
    edges = chord.edge_timesteps
    steps: list[Step] = []
    for i, (sigma, sigma_next) in enumerate(pairs):
        if sigma_next > sigma:
            steps += _rising_steps(chord, i, (sigma, sigma_next), (T[i], T[i + 1]))
            continue
        crossed = edges_between(chord.K, T[i + 1], T[i])
        ends_on_edge = any(abs(T[i + 1] - e) <= EDGE_TOLERANCE for e in edges)
        starts_on_edge = any(abs(T[i] - e) <= EDGE_TOLERANCE for e in edges)
        inside = [_sigma(chord, e + 1) for e in crossed]
        last_probe = _sigma(chord, round(T[i + 1]) + 1) if ends_on_edge else sigma_next
        stops = [sigma, *(_sigma(chord, e) for e in crossed), sigma_next]
        for part, probe in enumerate([*inside, last_probe]):
            fresh = i == 0 or part > 0 or starts_on_edge
            probe = probe if probe < stops[part] else 0.0
            last = part == len(crossed)
            steps.append(Step(i, stops[part], stops[part + 1], probe, fresh, stops[part], last))
    return steps


def _rising_steps(chord: WindowChord, i: int, levels: tuple[float, float], T: tuple[float, float]) -> list[Step]:
    """From picture to noise. An edge belongs to the window below it, so a part looks from one timestep above."""
    crossed = edges_between(chord.K, T[0], T[1])[::-1]
    starts_on_edge = any(abs(T[0] - e) <= EDGE_TOLERANCE for e in chord.edge_timesteps)
    looks = [_sigma(chord, round(T[0]) + 1) if starts_on_edge else levels[0], *(_sigma(chord, e + 1) for e in crossed)]
    stops = [levels[0], *(_sigma(chord, e) for e in crossed), levels[1]]
    steps = []
    for part, look in enumerate(looks):
        fresh, last = i == 0 or part > 0 or starts_on_edge, part == len(crossed)
        steps.append(Step(i, stops[part], stops[part + 1], stops[part + 1], fresh, look, last))
    return steps


class Slope:
    """d = (X - x0) / sigma, with the callback k-diffusion gives its callers."""

    def __init__(self, model: Denoiser, x: Tensor, extra_args: dict[str, Any] | None, callback: Callback | None):
        self.model = model
        self.extra_args = extra_args or {}
        self.callback = callback
        self.ones = x.new_ones(x.shape[0])

    def __call__(self, x: Tensor, sigma: float, i: int | None = None) -> Tensor:
        """The slope at x, sigma; i names the caller's step to report, None reports nothing."""
        level = sigma * self.ones
        denoised = self.model(x, level, **self.extra_args)
        if self.callback is not None and i is not None:
            self.callback({"x": x, "i": i, "sigma": level[0], "sigma_hat": level[0], "denoised": denoised})
        return (x - denoised) / sigma


def _sigma(chord: WindowChord, T: float) -> float:
    return float(chord.sigma(chord.t.new_tensor(T)))
