"""The steps of a list of sigmas, divided where they cross a window edge, for solvers that must not step across one."""

from typing import NamedTuple

import torch
from torch import Tensor

from .chord import WindowChord
from .windows import edges_inside, is_edge


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
    path, T = chord.to("cpu", torch.float64), chord.path_timesteps(sigmas).tolist()
    steps = PiecewiseSteps(levels[:1], [], [], [], [])

    def above(edge: float) -> float:
        return float(path.sigma(path.t.new_tensor(round(edge) + 1.0)))

    for i in range(n):
        falls = levels[i + 1] <= levels[i]
        high, low = (T[i], T[i + 1]) if falls else (T[i + 1], T[i])
        edges = [chord.edge_timesteps[w] for w in edges_inside(chord.K, high, low)][:: 1 if falls else -1]
        stops = [levels[i], *path.sigma(path.t.new_tensor(edges)).tolist(), levels[i + 1]]
        T_stops = [T[i], *edges, T[i + 1]]
        on_edge = [is_edge(T_stop, chord.K) for T_stop in T_stops]
        for j in range(len(stops) - 1):
            sigma_hat = above(T_stops[j]) if on_edge[j] and not falls else stops[j]
            sigma_prime = above(T_stops[j + 1]) if on_edge[j + 1] and falls else stops[j + 1]
            steps.sigmas.append(stops[j + 1])
            steps.sigma_hat.append(sigma_hat)
            steps.sigma_prime.append(sigma_prime if not falls or sigma_prime < stops[j] else 0.0)
            steps.first.append(i == 0 or on_edge[j])
            steps.reported.append(i if j == len(edges) else None)
    return steps
