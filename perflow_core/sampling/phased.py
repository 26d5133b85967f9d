"""PCM (Wang et al., NeurIPS 2024): the timesteps of phased consistency models.

PCM cuts the path into phases and teaches the UNet to jump from anywhere in a phase to the phase's end. Its LoRAs for
SD1.5 and SDXL predict noise on Stable Diffusion's table ab[0..999] and are stepped by DDIM from timestep t to the next,
    x0 = (x - sqrt(1 - ab[t]) eps) / sqrt(ab[t]),    x' = sqrt(ab[t']) x0 + sqrt(1 - ab[t']) eps,
which in ComfyUI's latent X = x / sqrt(ab) is a plain Euler step in sigma = sqrt((1 - ab) / ab). The stochastic
(LCM-like) one adds new noise instead: x' = sqrt(ab[t']) x0 + sqrt(1 - ab[t']) noise, the stock sampler lcm. What
differs is where the steps stand. The official code ends at ab[0], not at x0; the last grid point goes there.

Timesteps here are entries of the table, 0 to 999, falling.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .windows import NUM_TIMESTEPS, Float64, steps_per_window

Timesteps = NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.float64)
Grid = Literal["trailing", "training_edges", "tcd"]
GRIDS: tuple[Grid, ...] = get_args(Grid)

FINEST = 1 / (2 * NUM_TIMESTEPS)  # of denoise
LCM_TIMESTEPS = 50  # the fine grid 19, 39, ..., 999 of LCM and TCD
FINE_TIMESTEPS = {"SD1.5": 50, "SDXL": 40}  # the fine DDIM grid that PCM's LoRAs were trained on


def is_distilled(sigmas: Tensor) -> bool:
    """Whether a model's table is the one that LCM-like sampling sets: fewer levels than Stable Diffusion's 1000."""
    return len(sigmas) < NUM_TIMESTEPS


def trailing(n: int) -> Timesteps:
    """round(1000 - 1000 j / n) - 1, halves to even, j = 0..n-1: n=4 gives 999 749 499 249. DDIM's trailing spacing."""
    T = NUM_TIMESTEPS - np.arange(n) * NUM_TIMESTEPS / n
    return np.maximum(np.round(T).astype(np.int64) - 1, 0)


def tcd(n: int) -> Timesteps:
    """Of 999, 979, ..., 19 those at floor(50 j / n): n=4 gives 999 759 499 259. LCM's and TCD's spacing."""
    fine = np.arange(NUM_TIMESTEPS, 0, -(NUM_TIMESTEPS // LCM_TIMESTEPS), dtype=np.int64) - 1
    return fine[np.arange(n) * LCM_TIMESTEPS // n]


def phase_edges(phases: int, fine: int) -> Timesteps:
    """Where the phases of the training end: 4 on a fine grid of 50 points 999 739 499 239 0; shape [phases + 1].

    Edge w lies at the fine point before floor(w fine / phases), the last one at entry 0. phases in 1..fine.
    """
    before = np.arange(1, phases) * fine // phases
    inner = before * NUM_TIMESTEPS // fine - 1
    return np.concatenate([[NUM_TIMESTEPS - 1], inner[::-1], [0]]).astype(np.int64)


def training_edges(n: int, phases: int, fine: int) -> Timesteps:
    """n steps over the phases of the training, the noisiest phases taking those that do not divide (as in windows.py).

    Inside a phase the steps are even, rounded to whole timesteps. With fewer steps than phases, n of the edges are
    visited, evenly.
    """
    spans = zip(pairwise(phase_edges(phases, fine)), steps_per_window(n, phases), strict=True)
    return np.concatenate([np.round(np.linspace(*span, k, endpoint=False)) for span, k in spans]).astype(np.int64)


def flow_levels(n: int, pcm_timesteps: int) -> Float64:
    """SD3's levels s in (0, 1] before its shift: of P/P, ..., 1/P those at floor(P j / n), P = pcm_timesteps.

    P=50, n=4 gives 1 .76 .5 .26; the UNet gets 1000 shift s / (1 + (shift - 1) s). P divides 1000, as in the
    official code, or the steps of 1/P are not theirs.
    """
    return (pcm_timesteps - np.arange(n) * pcm_timesteps // n) / pcm_timesteps


def grid_steps(steps: int, denoise: float) -> int:
    """Steps of the whole grid of which `steps` are taken: int(steps / denoise), as KSampler counts; denoise > 0.

    Below FINEST all of them fall on the same timestep, however fine the grid.
    """
    return steps if denoise > 0.9999 else int(steps / max(denoise, FINEST))


def last_steps(grid: Callable[[int], NDArray[Number]], steps: int, denoise: float) -> NDArray[Number]:
    """The last `steps` points of a grid that is as much finer as denoise is smaller, each once; shape [steps] or less.

    trailing, 2 steps, denoise 0.5 gives 499 249. A grid with fewer points than steps gives what it has.
    """
    if denoise <= 0:
        return grid(1)[:0]
    points = grid(grid_steps(steps, denoise))[-steps:]
    return points[np.append(True, points[1:] < points[:-1])]
