"""Time windows, and how steps lie in them.

PeRFlow (Yan et al., NeurIPS 2024) cuts t in [0, 1] into K windows and makes the path straight inside each.
t = 1 is noise, t = 0 is data; T = 1000 t. For Stable Diffusion T is the timestep that the UNet is given; for a flow
model t is its time before the shift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import listed, shown
from . import tolerances

Float64 = NDArray[np.float64]

NUM_TIMESTEPS = 1000
MOST_SHOWN, AS_SHOWN = 12, 1e-4  # edges in a line; how near they are when four digits are the same
MOST_WINDOWS = 100  # of 10 timesteps each, twice `tolerances.NEAR_EDGE`: no timestep is beside two edges


@dataclass(frozen=True, eq=False)
class Windows:
    """K windows from t = 1 down to t = 0.

    edges: [K + 1], falling from 1 to 0. whole: steps stand on whole timesteps, as PeRFlow's scheduler puts them; for a
    flow model they keep their fractions. span: the part of the path that a model is for, from its first edge to its
    last. Where two models share the path, each has the part of the other as one window more.
    """

    edges: Float64
    whole: bool = True
    span: tuple[float, float] = (1.0, 0.0)

    @classmethod
    def even(cls, K: int) -> "Windows":
        """e_w = (K - w) / K for w = 0..K. Raises ValueError for K outside 1..100."""
        if not 1 <= K <= MOST_WINDOWS:
            raise ValueError(f"{K} windows, expected 1 to {MOST_WINDOWS}: published models use 4.")
        return cls((K - np.arange(K + 1)) / K)

    @property
    def K(self) -> int:
        return len(self.edges) - 1

    @property
    def is_part(self) -> bool:
        """Whether another model has the rest of the path."""
        return len(self.own) < self.K

    @property
    def own(self) -> range:
        """The windows of the span."""
        return range(int(self.edges[0] > self.span[0]), self.K - int(self.edges[-1] < self.span[1]))

    @cached_property
    def edge_timesteps(self) -> list[float]:
        """The timesteps of the K + 1 edges, where steps stand: K=4 gives 1000 750 500 250 0, K=3 1000 666 333 0."""
        T = NUM_TIMESTEPS * self.edges
        return (np.floor(np.round(T, 6)) if self.whole else T).tolist()

    def window_of(self, T: Float64) -> NDArray[np.int64]:
        """The window of each timestep [n]; an edge is in the one that it starts."""
        return window_of(T, self.edges)

    def inside(self, T_s: float, T_e: float) -> NDArray[np.int64]:
        """The numbers w of the edges inside the way from T_s down to T_e, falling; its two ends do not count.

        An edge between two timesteps (666.667) counts as at an end where either it or its timestep (666) is there.
        """
        above_end = np.array(self.edge_timesteps) > T_e + tolerances.EDGE
        return np.flatnonzero(above_end & (NUM_TIMESTEPS * self.edges < T_s - tolerances.EDGE))

    def spanned(self, t_s: float = 1.0, t_e: float = 0.0) -> Float64:
        """The path from t_s down to t_e, cut at the edges inside it: [t_s, e, ..., t_e]."""
        inside = self.edges[self.inside(NUM_TIMESTEPS * t_s, NUM_TIMESTEPS * t_e)]
        return np.concatenate([[t_s], inside, [t_e]])

    def steps_across(self, T: Float64) -> int:
        """How many steps from each timestep to the next have an edge inside, where the trajectory bends."""
        return sum(self.inside(max(step), min(step)).size > 0 for step in pairwise(T.tolist()))

    def is_edge(self, T: float) -> bool:
        """Whether a timestep is on one of the K + 1 edges where steps stand."""
        return any(abs(T - edge) <= tolerances.EDGE for edge in self.edge_timesteps)

    def snapped(self, T: float, step: float) -> float:
        """The edge that T is beside, else T itself; the end of the path, 0, is no such edge.

        Beside an edge is what is nearer than `tolerances.NEAR_EDGE` and than half of `step`, the length of the step at
        T. Just above an edge the network's output is for the window that is nearly over, and the whole next step would
        follow it.
        """
        edges = np.array(self.edge_timesteps[:-1])
        nearest = float(edges[np.abs(edges - T).argmin()])
        return nearest if abs(nearest - T) < min(tolerances.NEAR_EDGE, step / 2) else T

    def grid(self, counts: list[int], edges: Float64) -> Float64:
        """counts[w] points from edges[w] towards edges[w + 1], times 1000; shape [sum(counts)].

        Whole ones are truncated as officially, float64 accidents included (K=4, n=20 gives 99 and 49). The first point
        is the caller's own and stays as it is. Where truncation would repeat a timestep (beyond about 500 steps) or the
        end of the path, the fractions stay.
        """
        spans = zip(pairwise(edges), counts, strict=True)
        t = np.concatenate([np.linspace(*span, k, endpoint=False) for span, k in spans])
        if not self.whole:
            return NUM_TIMESTEPS * t
        T = np.trunc(NUM_TIMESTEPS * t)
        T[:1] = np.round(NUM_TIMESTEPS * t[:1], 6)
        return T if np.all(np.diff(T, append=NUM_TIMESTEPS * edges[-1]) < 0) else NUM_TIMESTEPS * t

    def timesteps(self, n: int, t_s: float = 1.0, t_e: float = 0.0) -> Float64:
        """The n timesteps of the path from t_s to t_e (t_e itself not among them), falling; shape [n].

        The windows of the path share the steps by `shared_steps`. With fewer steps than windows, n of the edges are
        visited, evenly: K=4, n=2 gives 1000 500. (The official scheduler takes K steps instead.) A window that is
        entered past its start then counts as one with the next.
        """
        edges = self.spanned(t_s, t_e)
        if n < len(edges) - 1 and t_s < self.edges[-len(edges)] - tolerances.EDGE / NUM_TIMESTEPS:
            edges = np.delete(edges, 1)
        lengths = -NUM_TIMESTEPS * np.diff(edges)
        counts = shared_steps(n, lengths) if n >= len(lengths) else steps_per_window(n, len(lengths))
        return self.grid(counts, edges)

    def of_each(self, T: Float64) -> list[Float64]:
        """Timesteps [n] by window, those without any left out."""
        window = self.window_of(T)
        return [T[window == w] for w in np.unique(window)]


def parse_edges(text: str) -> list[float] | None:
    """The text "1, 0.94, 0.875" as sigmas, None where it is empty. Raises ValueError for other than numbers."""
    if not text.strip():
        return None
    try:
        return checked_edges([float(part) for part in text.split(",")])
    except ValueError as error:
        raise ValueError(
            f'edges is "{shown(text, 60)}", expected sigmas that fall and lie between 1 and 0, with commas between '
            f'them, such as "1, 0.94, 0.875": at least 2 and at most {MOST_WINDOWS + 1}.'
        ) from error


def checked_edges(edges: Sequence[float]) -> list[float]:
    """Raises ValueError for numbers that do not fall, or leave 0..1, or are too many."""
    falls = all(above > below for above, below in pairwise(edges))
    if not 2 <= len(edges) <= MOST_WINDOWS + 1 or not falls or edges[0] > 1 or edges[-1] < 0:
        raise ValueError(
            f"The window edges are {listed(edges[:9])}, expected 2 to {MOST_WINDOWS + 1} sigmas that fall and lie "
            "between 1 and 0."
        )
    return list(edges)


def edges_text(edges: Sequence[float]) -> str:
    """Sigmas for a reader, the middle of a long list left out."""
    words = [f"{edge:.4g}" for edge in edges]
    return " ".join(words if len(words) <= MOST_SHOWN else [*words[: MOST_SHOWN - 2], "...", words[-1]])


def same_edges(one: Sequence[float], other: Sequence[float]) -> bool:
    """As far as `edges_text` shows them."""
    return len(one) == len(other) and all(abs(a - b) < AS_SHOWN for a, b in zip(one, other, strict=True))


def by_window(T: Float64, windows: Windows) -> str:
    """Timesteps as text, a bar where a new window begins: "1000 875 | 750 625 | 500 | 250"."""
    return " | ".join(map(listed, windows.of_each(T)))


def edge_entries(K: int) -> list[int]:
    """The entries of Stable Diffusion's noise table at the K + 1 edges, as officially: int(1000 t) - 1, at last 0."""
    return [max(int(T) - 1, 0) for T in Windows.even(K).edge_timesteps]


def percent_timestep(percent: float) -> float:
    """T = 1 + 999 (1 - p): where a share p of the path is over, as the base model's entry 999 (1 - p) is.

    ComfyUI counts both ends of a range in, so two ranges that meet at p must not meet on a step. For p = i / n this is
    just above the step trunc(1000 (1 - i / n)).
    """
    return 1 + (NUM_TIMESTEPS - 1) * (1 - percent)


def window_of(T: Float64, edges: Float64) -> NDArray[np.int64]:
    """The window of each timestep [n] on a path cut at `edges` (t, falling); an edge is in the one that it starts."""
    return (T[:, None] <= NUM_TIMESTEPS * edges[1:-1] + tolerances.EDGE).sum(axis=1)


def steps_per_window(n: int, K: int) -> list[int]:
    """n // K steps a window, the first (noisiest) n % K windows one more. With n < K one step in n windows, evenly."""
    if n < K:
        visited = [i * K // n for i in range(n)]
        return [int(w in visited) for w in range(K)]
    return [n // K + (w < n % K) for w in range(K)]


def shared_steps(n: int, lengths: Float64) -> list[int]:
    """One step a window, and each further one to the window whose steps are the longest, the noisiest of equals.

    lengths: the windows' own, in timesteps; n is at least their number. For windows of equal length these are the
    official counts, `steps_per_window`.
    """
    counts = np.ones(len(lengths), dtype=np.int64)
    for _ in range(n - len(lengths)):
        counts[np.argmax(np.round(lengths / counts, 6))] += 1  # rounded: windows of equal length are not so in float64
    return counts.tolist()
