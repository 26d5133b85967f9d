"""The numbers of the method page's figures: four windows, and a made-up picture of one pixel on its way through them.

The pixel is dark or bright, x0 = -2 or 2 (each with a spread of 0.2), so the best denoiser is a formula and the base
model's path can be followed as exactly as one likes. Everything else is perflow_core's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from perflow_core.sampling.chord import WindowChord, shifted
from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.solvers import sample_euler, sample_heun
from perflow_core.sampling.windows import Windows

Denoiser = Callable[[Tensor, Tensor], Tensor]

WINDOWS = 4
START = 0.6  # X at sigma 14.6: a pixel that is almost all noise
FLOW_START, SHIFT = 0.22, 3.0  # x of a flow model at sigma 1, all noise; the shift of its time, as in SD3
DARK, BRIGHT, SPREAD = -2.0, 2.0, 0.2
FINE = 500  # steps a window of the path that counts as exact


class Paths(NamedTuple):
    """One pixel from noise to picture; the exact path and those of four steps."""

    fine_sigmas: Tensor  # [WINDOWS * FINE + 1]
    base: Tensor  # X on the base model's exact path, at fine_sigmas
    sigmas: Tensor  # the window edges, [WINDOWS + 1]
    perflow_steps: Tensor  # X of four steps of an ideal PeRFlow model, at sigmas
    base_steps: Tensor  # X of the same four steps of the base model, at sigmas


def alphas_cumprod() -> Tensor:
    """Stable Diffusion's: betas = linspace(sqrt 0.00085, sqrt 0.012, 1000)^2, ab = cumprod(1 - betas); float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


def window_chord() -> WindowChord:
    return WindowChord.from_alphas_cumprod(alphas_cumprod(), WINDOWS)


def flow_chord() -> WindowChord:
    return WindowChord.of_flow(shifted(Windows.even(WINDOWS).edges, SHIFT).tolist(), SHIFT)


def paths() -> Paths:
    return paths_of(base_model, window_chord(), START)


def flow_paths() -> Paths:
    return paths_of(flow_model, flow_chord(), FLOW_START)


def paths_of(base: Denoiser, chord: WindowChord, X: float) -> Paths:
    sigmas = window_schedule(chord, WINDOWS, end="reference")
    start = torch.tensor([X], dtype=torch.float64)
    fine_sigmas, exact = exact_path(base, start, sigmas)
    perflow_steps = trace(sample_euler, ideal_student(base, chord), start, sigmas)
    return Paths(fine_sigmas, exact, sigmas, perflow_steps, trace(sample_euler, base, start, sigmas))


def base_model(X: Tensor, sigma: Tensor) -> Tensor:
    """The best guess of x0 at X = x0 + sigma eps: the mean of x0 given X, both of shape [1]."""
    total = sigma**2 + SPREAD**2
    means = torch.tensor([DARK, BRIGHT], dtype=torch.float64)
    share = torch.softmax(-((X - means) ** 2) / (2 * total), dim=0)
    guess = (means * sigma**2 + X * SPREAD**2) / total
    return (share * guess).sum(dim=0, keepdim=True)


def flow_model(x: Tensor, sigma: Tensor) -> Tensor:
    """The same of a flow model, at x = (1 - sigma) x0 + sigma noise."""
    a = 1 - sigma
    variance = a**2 * SPREAD**2 + sigma**2
    means = torch.tensor([DARK, BRIGHT], dtype=torch.float64)
    share = torch.softmax(-((x - a * means) ** 2) / (2 * variance), dim=0)
    guess = means + a * SPREAD**2 / variance * (x - a * means)
    return (share * guess).sum(dim=0, keepdim=True)


def ideal_student(base: Denoiser, chord: WindowChord) -> Denoiser:
    """What PeRFlow trains towards: from a window's start, the one slope that leads to where the base model's path ends.

    eps = (X_s - X_e) / (sigma_s - sigma_e); called at window starts only.
    """
    edges = chord.s / chord.c

    def model(X: Tensor, sigma: Tensor) -> Tensor:
        w = int(chord.window(sigma))
        _, path = exact_path(base, X, edges[w : w + 2])
        eps = (X - path[-1]) / (edges[w] - edges[w + 1])
        return X - sigma * eps

    return model


def exact_path(model: Denoiser, start: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """The path through these levels in FINE steps each: levels and X, both of shape [FINE * (len(sigmas) - 1) + 1]."""
    share = torch.arange(FINE, dtype=torch.float64) / FINE
    inner = sigmas[:-1, None] + share * sigmas.diff()[:, None]
    fine = torch.cat([inner.flatten(), sigmas[-1:]])
    return fine, trace(sample_heun, model, start, fine)


def trace(solver: Callable[..., Tensor], model: Denoiser, start: Tensor, sigmas: Tensor) -> Tensor:
    """X at every level that a solver passes; shape of sigmas."""
    passed: list[Tensor] = []
    last = solver(model, start, sigmas, callback=lambda state: passed.append(state["x"]))
    return torch.cat([*passed, last])
