"""Lay a foreign list of sigmas on the window grid, so that any scheduler gives the official steps."""

import numpy as np
import torch
from torch import Tensor

from ..host import host_float64
from .chord import WindowChord
from .windows import NUM_TIMESTEPS, Float64, integer_grid, on_edge, spanned_edges, timesteps, window_edges

ON_THE_GRID = 2e-3  # in timesteps: float32 noise that `WindowChord.timestep` leaves between whole ones
CUT = 1.0  # in timesteps: whole timesteps are cut ones, so a part of a grid is even to one only


def align(chord: WindowChord, sigmas: Tensor, from_noise: bool = False) -> Tensor:
    """The same number of steps from the first sigma to the last, laid on the window grid; shape of `sigmas`.

    First and last stay, but for those beside a window edge, which go on it (`windows.on_edge`). The first becomes that
    of pure noise where the latent is empty (`from_noise`), where it is above pure noise (another model's list) and
    where it is no number. Returned untouched (the same object) are lists that are a window grid for the counts that
    they have themselves in each window, such as Window Schedule's and their slices, and those that do not fall
    throughout, which go from data to noise or back and forth on purpose.
    """
    levels = host_float64(sigmas).nan_to_num(nan=torch.inf)
    n = len(levels) - 1
    if n < 1 or not bool((levels.diff() < 0).all()):
        return sigmas
    path = chord.to("cpu", torch.float64)
    top = path.sigma(path.t.new_tensor(float(NUM_TIMESTEPS)))
    T = path.timestep(levels.clamp(max=top)).numpy()
    starts = bool(levels[0] <= top * (1 + 1e-5)) and (T[0] == NUM_TIMESTEPS or not from_noise)
    if starts and is_window_grid(T, chord.K):
        return sigmas
    mean_step = (T[0] - T[-1]) / n
    T_s = on_edge(T[0], chord.K, mean_step) if not from_noise else NUM_TIMESTEPS
    T_e = on_edge(T[-1], chord.K, mean_step)
    if T_s <= T_e:
        return sigmas
    starts, ends = starts and bool(T_s == T[0]), bool(T_e == T[-1])
    grid = timesteps(n, chord.K, T_s / NUM_TIMESTEPS, T_e / NUM_TIMESTEPS)
    laid = path.sigma(torch.from_numpy(np.append(grid, T_e))).to(sigmas.dtype).to(sigmas.device)
    return torch.cat([sigmas[:1] if starts else laid[:1], laid[1:-1], sigmas[-1:] if ends else laid[-1:]])


def is_window_grid(T: Float64, K: int) -> bool:
    """Whether timesteps (the end of the path last) are the grid of the counts that they have in each window.

    A first or last one beside an edge is on no grid, unless the steps there, or all of them, are as short as that
    (`on_edge`).
    """
    T_s, T_e = T[0], T[-1]
    mean_step = (T_s - T_e) / (len(T) - 1)
    if on_edge(T_s, K, min(T_s - T[1], mean_step)) != T_s or on_edge(T_e, K, min(T[-2] - T_e, mean_step)) != T_e:
        return False
    edges = spanned_edges(K, T_s / NUM_TIMESTEPS, T_e / NUM_TIMESTEPS)
    windows = len(edges) - 1
    window = (T[:-1, None] <= NUM_TIMESTEPS * edges[1:-1] + ON_THE_GRID).sum(axis=1)
    grid = integer_grid(np.bincount(window, minlength=windows).tolist(), edges)
    exact = NUM_TIMESTEPS * window_edges(K)  # 666.667 for three windows, whose grid stands on 666
    cut = [w for w, end in ((0, T_s), (windows - 1, T_e)) if np.abs(exact - end).min() > ON_THE_GRID]
    tolerance = np.where(np.isin(window, cut), CUT, ON_THE_GRID)
    return bool((np.abs(T[:-1] - grid) <= tolerance).all())
