"""Lay a foreign list of sigmas on the window grid, so that any scheduler gives the official steps."""

import numpy as np
import torch
from torch import Tensor

from .chord import WindowChord
from .host import host_float64
from .windows import EDGE_TOLERANCE, NUM_TIMESTEPS, Float64, timesteps


def path_timesteps(chord: WindowChord, sigmas: Tensor) -> Float64:
    """The timesteps of a list of sigmas, in float64 on the host (the one wait for the device); shape of `sigmas`."""
    return chord.to("cpu", torch.float64).timestep(host_float64(sigmas)).numpy()


def align(chord: WindowChord, sigmas: Tensor) -> Tensor:
    """The same first and last sigma and the same number of steps, with the inner ones on the window grid.

    Returned untouched (the same object) are lists that someone has laid out on purpose: those that already hold every
    edge they span, those that stand on nothing but edges, and those that do not fall throughout. What is on the grid
    up to the rounding of another scheduler (one timestep) is put exactly on it.
    """
    T = path_timesteps(chord, sigmas)
    n = len(T) - 1
    if n < 2 or not np.all(np.diff(T) < 0):
        return sigmas
    grid = timesteps(n, chord.K, T[0] / NUM_TIMESTEPS, T[-1] / NUM_TIMESTEPS)
    if np.abs(T[1:-1] - grid[1:]).max() == 0 or (_is_deliberate(chord, T) and not _is_rounding_of(grid, T[:-1])):
        return sigmas
    inner = chord.to("cpu", torch.float64).sigma(torch.from_numpy(grid[1:]))
    return torch.cat([sigmas[:1], inner.to(sigmas), sigmas[-1:]])


def _is_deliberate(chord: WindowChord, T: Float64) -> bool:
    edges = np.array(chord.edge_timesteps)
    spanned = edges[(edges < T[0] - EDGE_TOLERANCE) & (edges > T[-1] + EDGE_TOLERANCE)]
    holds_every_edge = np.isin(spanned.round(), _near_integers(T[1:-1])).all()
    only_edges = np.isin(_near_integers(T[1:-1]), spanned.round()).all()
    return bool(holds_every_edge or only_edges)


def _near_integers(T: Float64) -> Float64:
    """Timesteps within the edge tolerance of an integer as that integer, the others as they are."""
    return np.where(np.abs(T - T.round()) <= EDGE_TOLERANCE, T.round(), T)


def _is_rounding_of(grid: Float64, T: Float64) -> bool:
    return bool(np.abs(T - grid).max() <= 1.0)
