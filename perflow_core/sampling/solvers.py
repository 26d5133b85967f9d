"""Piecewise solvers in k-diffusion's signature: no step crosses a window edge.

The path bends at every edge. A step that would cross one is divided there (`split_at_edges`), and a multistep solver
forgets its history. Without a chord (a model that is not PeRFlow) each is the ordinary solver of its name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .chord import WindowChord

REFINEMENTS = 6  # model calls of a rising step, beside the first: fewer lose more, thirty can diverge (docs/method.md)

Denoiser = Callable[..., Tensor]
Callback = Callable[[dict[str, Any]], None]
Sampler = Callable[..., Tensor]
Derivative = Callable[..., Tensor]  # to_d(x, sigma, i): dX/dsigma; i is the caller's step to report, if any


class PiecewiseSteps(NamedTuple):
    """n steps in plain numbers, from each of n + 1 sigmas to the next; the other lists have an entry for each step."""

    sigmas: list[float]
    sigma_hat: list[float]  # where the model is called first: sigma, but just inside the window of a rising step
    sigma_prime: list[float]  # where second-order solvers call it again: the last level of the step in its window, or 0
    first: list[bool]  # no step before it in this window
    reported: list[int | None]  # the caller's step for its callback; of one in parts the last part, whose x0 is newest


def split_at_edges(sigmas: Tensor, chord: WindowChord | None) -> PiecewiseSteps:
    """The steps of the caller's sigmas [n + 1], those that cross a window edge divided there; all without a chord.

    At an edge itself the UNet's output is for the window below. So for a falling step that ends there, and a rising one
    that starts there, the model is called one timestep above it.
    """
    levels = sigmas.tolist()
    n = len(levels) - 1
    if chord is None:
        return PiecewiseSteps(levels, levels[:-1], levels[1:], [i == 0 for i in range(n)], list(range(n)))
    path, windows, T = chord.to("cpu", torch.float64), chord.windows, chord.path_timesteps(sigmas).tolist()
    steps = PiecewiseSteps(levels[:1], [], [], [], [])

    def above(edge: float) -> float:
        return float(path.sigma(path.t.new_tensor((round(edge) if windows.whole else edge) + 1.0)))

    for i in range(n):
        falls = levels[i + 1] <= levels[i]
        high, low = (T[i], T[i + 1]) if falls else (T[i + 1], T[i])
        edges = [windows.edge_timesteps[w] for w in windows.inside(high, low)][:: 1 if falls else -1]
        stops = [levels[i], *path.sigma(path.t.new_tensor(edges)).tolist(), levels[i + 1]]
        T_stops = [T[i], *edges, T[i + 1]]
        on_edge = [windows.is_edge(T_stop) for T_stop in T_stops]
        for j in range(len(stops) - 1):
            sigma_hat = above(T_stops[j]) if on_edge[j] and not falls else stops[j]
            sigma_prime = above(T_stops[j + 1]) if on_edge[j + 1] and falls else stops[j + 1]
            steps.sigmas.append(stops[j + 1])
            steps.sigma_hat.append(sigma_hat)
            steps.sigma_prime.append(sigma_prime if not falls or sigma_prime < stops[j] else 0.0)
            steps.first.append(i == 0 or on_edge[j])
            steps.reported.append(i if j == len(edges) else None)
    return steps


def solver(loop: Callable[[Derivative, Tensor, PiecewiseSteps], Tensor]) -> Sampler:
    """Make a loop over steps that cross no window edge a sampler with k-diffusion's signature.

    x of shape [B, ...], sigmas of shape [n + 1]; model(x, sigma[B], **extra_args) returns x0. Returns x.
    """

    def sample(
        model: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callback | None = None,
        *,
        chord: WindowChord | None = None,
    ) -> Tensor:
        ones = x.new_ones(x.shape[0])

        def to_d(x: Tensor, sigma: float, i: int | None = None) -> Tensor:
            level = sigma * ones
            denoised = model(x, level, **(extra_args or {}))
            if callback is not None and i is not None:
                callback({"x": x, "i": i, "sigma": level[0], "sigma_hat": level[0], "denoised": denoised})
            return (x - denoised) / sigma

        return loop(to_d, x, split_at_edges(sigmas, chord))

    return sample


@solver
def sample_euler(to_d: Derivative, x: Tensor, steps: PiecewiseSteps) -> Tensor:
    """X' = X + (sigma' - sigma) d with d = (X - x0) / sigma: the official PeRFlow step, one model call.

    A rising list goes from the picture back to its noise: X' that the falling step would bring to X,
    X' = X + (sigma' - sigma) d(X'), by REFINEMENTS fixed-point iterations from the slope at X.
    """
    for i in range(len(steps.sigmas) - 1):
        h = steps.sigmas[i + 1] - steps.sigmas[i]
        d = to_d(x, steps.sigma_hat[i], steps.reported[i])
        # Implicit step, back to the noise
        for _ in range(REFINEMENTS if h > 0 else 0):
            d = to_d(x + h * d, steps.sigmas[i + 1])
        # Euler step
        x = x + h * d
    return x


@solver
def sample_heun(to_d: Derivative, x: Tensor, steps: PiecewiseSteps) -> Tensor:
    """X' = X + h (d + (d' - d) / (2 theta)), d' taken at sigma + theta h; two model calls.

    theta = 1 is Heun's method (Karras et al. 2022, Algorithm 1). A step that ends on a window edge takes d' one
    timestep inside the window instead, which keeps the second order. Without a second point the step is Euler's.
    """
    for i in range(len(steps.sigmas) - 1):
        h = steps.sigmas[i + 1] - steps.sigmas[i]
        d = to_d(x, steps.sigma_hat[i], steps.reported[i])
        # Second-order correction
        if steps.sigma_prime[i] > 0:
            theta_h = steps.sigma_prime[i] - steps.sigmas[i]
            d_prime = to_d(x + theta_h * d, steps.sigma_prime[i])
            d = d + (d_prime - d) * h / (2 * theta_h)
        # Euler step
        x = x + h * d
    return x


@solver
def sample_ab2(to_d: Derivative, x: Tensor, steps: PiecewiseSteps) -> Tensor:
    """X' = X + h (d + h / 2h_ (d - d_)): two-step Adams-Bashforth with step sizes h, one model call.

    d_ and h_ are the slope and size of the step before; the first step in every window is Euler's.
    """
    d_old: Tensor | None = None
    h_old = 0.0
    for i in range(len(steps.sigmas) - 1):
        h = steps.sigmas[i + 1] - steps.sigmas[i]
        d = d_prime = to_d(x, steps.sigma_hat[i], steps.reported[i])
        # Second-order correction
        if d_old is not None and not steps.first[i]:
            d_prime = d + h / (2 * h_old) * (d - d_old)
        # Euler step
        x = x + h * d_prime
        d_old, h_old = d, h
    return x


SOLVERS: dict[str, Sampler] = {"euler": sample_euler, "heun": sample_heun, "ab2": sample_ab2}
