"""Time windows and the official integer grid.

PeRFlow (Yan et al., NeurIPS 2024) cuts t in [0, 1] into K windows and makes the path straight inside each.
t = 1 is noise, t = 0 is data; T = 1000 t is the timestep that the UNet is given.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

NUM_TIMESTEPS = 1000
EDGE_TOLERANCE = 0.1  # in timesteps: the official window lookup compares t - 1e-4 with the edge


def window_edges(K: int) -> Float64:
    """e_w = (K - w) / K for w = 0..K, from 1 (noise) down to 0 (data); shape [K + 1]."""
    return (K - np.arange(K + 1)) / K


def spanned_edges(K: int, t_s: float = 1.0, t_e: float = 0.0) -> Float64:
    """The path from t_s down to t_e, cut at the window edges inside it: [t_s, e, ..., t_e]."""
    edges = window_edges(K)
    tolerance = EDGE_TOLERANCE / NUM_TIMESTEPS
    inside = edges[(edges < t_s - tolerance) & (edges > t_e + tolerance)]
    return np.concatenate([[t_s], inside, [t_e]])


def steps_per_window(n: int, K: int) -> list[int]:
    """n // K steps a window; the first (noisiest) n % K windows take one more."""
    return [n // K + (w < n % K) for w in range(K)]


def integer_grid(counts: list[int], edges: Float64) -> Float64:
    """counts[w] points from edges[w] towards edges[w + 1], times 1000, truncated; shape [sum(counts)].

    The truncation is the official one, float64 accidents included (K=4, n=20 gives 99 and 49). The first point
    is the caller's own and stays as it is. Where truncation would repeat a timestep (beyond about 500 steps), the
    fractions stay.
    """
    t = np.concatenate([np.linspace(*span, k, endpoint=False) for span, k in zip(pairwise(edges), counts, strict=True)])
    T = np.trunc(NUM_TIMESTEPS * t)
    T[:1] = np.round(NUM_TIMESTEPS * t[:1], 6)
    return T if np.all(np.diff(T) < 0) else NUM_TIMESTEPS * t


def timesteps(n: int, K: int, t_s: float = 1.0, t_e: float = 0.0) -> Float64:
    """The n timesteps of the path from t_s to t_e (t_e itself not among them), falling; shape [n].

    The windows of the path share the steps by `steps_per_window`. With fewer steps than windows, n of the
    window edges are visited, evenly: K=4, n=2 gives 1000 500. (The official scheduler takes K steps instead.)
    """
    edges = spanned_edges(K, t_s, t_e)
    windows = len(edges) - 1
    if n < windows:
        visited = [i * windows // n for i in range(n)]
        return integer_grid([int(w in visited) for w in range(windows)], edges)
    return integer_grid(steps_per_window(n, windows), edges)


def by_window(T: Float64, K: int) -> str:
    """Timesteps as text, a bar where a new window begins: "1000 875 | 750 625 | 500 | 250"."""
    edges = NUM_TIMESTEPS * window_edges(K)[1:-1]
    window = (T[:, None] <= np.trunc(edges) + EDGE_TOLERANCE).sum(axis=1)
    groups = [" ".join(f"{x:.6g}" for x in T[window == w]) for w in np.unique(window)]
    return " | ".join(groups)
