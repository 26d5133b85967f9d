"""Align a foreign list of sigmas to the window grid, so that any scheduler gives the official steps."""

import numpy as np
import torch
from torch import Tensor

from ..host import host_float64
from . import tolerances
from .chord import WindowChord
from .windows import NUM_TIMESTEPS, Float64, Windows, window_of


def align_to_windows(chord: WindowChord, sigmas: Tensor, from_noise: bool = False) -> Tensor:
    """The same number of steps from the first sigma to the last, on the window grid; shape of `sigmas`.

    First and last stay, but for those beside a window edge, which go on it (`Windows.snapped`). The first becomes
    that of pure noise where the latent is empty (`from_noise`), where it is above pure noise (another model's list) and
    where it is no number. Returned untouched (the same object) are lists that are a window grid already, for the number
    of steps that they have in each window (Window Schedule's and their slices), and those that do not fall throughout,
    which go from data to noise or back and forth on purpose.
    """
    levels = host_float64(sigmas).nan_to_num(nan=torch.inf)
    n = len(levels) - 1
    if n < 1 or not bool((levels.diff() < 0).all()):
        return sigmas
    path, windows = chord.to("cpu", torch.float64), chord.windows
    top = path.sigma(path.t.new_tensor(float(NUM_TIMESTEPS)))
    T = path.timestep(levels.clamp(max=top)).numpy()
    near = tolerances.GRID * max(chord.shift, 1)
    start = NUM_TIMESTEPS * windows.span[0]
    is_noise = T[0] >= start - (0 if windows.whole else near)
    keeps_first = bool(levels[0] <= top * (1 + tolerances.SAME_LEVEL) and (is_noise or not from_noise))
    if keeps_first and is_window_grid(T, windows, near):
        return sigmas
    mean_step = (T[0] - T[-1]) / n
    T_s = windows.snapped(T[0], mean_step) if not from_noise else max(T[0], start)
    T_e = windows.snapped(T[-1], mean_step)
    if T_s <= T_e:
        return sigmas
    keeps_first, keeps_last = keeps_first and bool(T_s == T[0]), bool(T_e == T[-1])
    grid = windows.timesteps(n, T_s / NUM_TIMESTEPS, T_e / NUM_TIMESTEPS)
    aligned = path.sigma(torch.from_numpy(np.append(grid, T_e))).to(sigmas.dtype).to(sigmas.device)
    first, last = sigmas[:1] if keeps_first else aligned[:1], sigmas[-1:] if keeps_last else aligned[-1:]
    return torch.cat([first, aligned[1:-1], last])


def is_window_grid(T: Float64, windows: Windows, near: float = tolerances.GRID) -> bool:
    """Whether falling timesteps [n + 1] are the window grid for the number of steps that they have in each window.

    The last one is the end of the path; near: in timesteps, what counts as on the grid. False also where
    `Windows.snapped` would move the first or the last, its step being the shorter of its own and the mean one, and for
    a flow model's list that leaves out a window though it has steps enough: at another shift than that of the windows,
    a scheduler's list is often the grid of some windows by chance.
    """
    T_s, T_e = T[0], T[-1]
    mean_step = (T_s - T_e) / (len(T) - 1)
    slack = 0.0 if windows.whole else near
    for end, step in ((T_s, T_s - T[1]), (T_e, T[-2] - T_e)):
        if abs(windows.snapped(end, min(step, mean_step)) - end) > slack:
            return False
    edges = windows.spanned(T_s / NUM_TIMESTEPS, T_e / NUM_TIMESTEPS)
    window = window_of(T[:-1], edges)
    counts = np.bincount(window, minlength=len(edges) - 1).tolist()
    if not windows.whole and 0 in counts and sum(counts) >= len(counts):
        return False
    grid = windows.grid(counts, edges)
    exact = NUM_TIMESTEPS * windows.edges  # 666.667 for three windows, whose grid stands on 666
    is_cut = [w for w, end in ((0, T_s), (len(edges) - 2, T_e)) if np.abs(exact - end).min() > tolerances.GRID]
    tolerance = np.where(np.isin(window, is_cut) & windows.whole, tolerances.CUT, near)
    return bool((np.abs(T[:-1] - grid) <= tolerance).all())
