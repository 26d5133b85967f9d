"""Rectified flow and rectified diffusion: paths without a bend, where steps that are even in time are right.

Rectified flow (Liu et al., ICLR 2023; InstaFlow, ICLR 2024): x_t = t noise + (1 - t) data. The UNet gets 1000 t and
answers v = data - noise, so that one of n even steps is x += v / n. With sigma = t this is ComfyUI's flow model but for
the sign of v: x0 = x + sigma v.

Rectified diffusion (Wang et al., ICLR 2025) shows that the straight line is not needed: an ordinary noise predictor on
a diffusion table of its own, stepped by DDIM over the trailing grid.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..host import host_float64
from . import tolerances
from .windows import NUM_TIMESTEPS, Float64


class NoisePath(Protocol):
    """Noise levels of a path by T = 1000 t, from 1000 (noise) down to 0 (data); float64 in and out, any shape."""

    def timestep(self, sigma: Float64) -> Float64: ...

    def sigma(self, T: Float64) -> Float64: ...


class FlowPath:
    """sigma = t, every fraction of it: T = 1000 sigma is what the UNet gets."""

    def timestep(self, sigma: Float64) -> Float64:
        return NUM_TIMESTEPS * sigma

    def sigma(self, T: Float64) -> Float64:
        return T / NUM_TIMESTEPS


class TablePath:
    """A diffusion table: T is entry T - 1 of the 1000 levels, as DDIM's trailing grid has it."""

    def __init__(self, sigmas: Tensor):
        """sigmas: the rising table [1000]."""
        self.sigmas = host_float64(sigmas).numpy()

    def timestep(self, sigma: Float64) -> Float64:
        """Between entries by the logarithm; the lowest level and what is below it are the end, 0."""
        with np.errstate(divide="ignore"):  # sigma 0 is the end
            entry = np.interp(np.log(sigma), np.log(self.sigmas), np.arange(NUM_TIMESTEPS))
        entry = np.where(np.abs(entry - np.round(entry)) < tolerances.GRID, np.round(entry), entry)
        return np.where(sigma <= self.sigmas[0] * (1 + tolerances.SAME_LEVEL), 0.0, entry + 1)

    def sigma(self, T: Float64) -> Float64:
        """Of the nearest whole timestep, halves to even; T in 1..1000."""
        return self.sigmas[np.round(T).astype(np.int64).clip(1, NUM_TIMESTEPS) - 1]


def align_evenly(path: NoisePath, sigmas: Tensor, from_noise: bool = False) -> Tensor:
    """The same number of steps from the first sigma to the last, T_i = T_0 + (T_n - T_0) i / n; shape of `sigmas`.

    The first sigma stays, but becomes that of pure noise (T = 1000) where the latent is empty (`from_noise`), where it
    is above pure noise (another model's list) and where it is no number. Returned untouched (the same object) are
    lists that are even already, that have no step, and that do not fall throughout, which go from data to noise or
    back and forth on purpose.
    """
    levels = np.nan_to_num(host_float64(sigmas).numpy(), nan=np.inf)
    n = len(levels) - 1
    if n < 1 or not np.all(np.diff(levels) < 0):
        return sigmas
    top = path.sigma(np.array([float(NUM_TIMESTEPS)]))
    first = top if from_noise or levels[0] > top[0] else levels[:1]
    T_0, T_n = path.timestep(first), path.timestep(levels[-1:])
    aligned = np.concatenate([first, path.sigma(T_0 + (T_n - T_0) * np.arange(1, n) / n), levels[-1:]])
    if np.allclose(aligned, levels, rtol=tolerances.SAME_LEVEL, atol=0):
        return sigmas
    return torch.from_numpy(aligned).to(sigmas)
