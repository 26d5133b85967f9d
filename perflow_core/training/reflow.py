"""How PeRFlow is trained: the teacher walks from a window's start to its end, the student learns the line between.

One example is made in four steps: `TimePoints` draws a window w and a timestep T in it, `window_start` gives X_s,
`TeacherWalk` takes X_s to X_e, and `line_through` with `lesson` says what the student is shown and what it should
answer. Latents are in sigma space, X = z / c, as in `chord`; rows of a batch may be in different windows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from ..host import host_float64
from ..sampling.chord import WindowChord
from ..sampling.parameterization import PredictionType, append_dims, output
from ..sampling.windows import NUM_TIMESTEPS, Float64, timesteps, window_edges, window_of

NoisePredictor = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["dpmpp_2m", "ddim"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


@dataclass(frozen=True)
class TimePoints:
    """The timesteps at which a student is taught, window by window, and how often each.

    T: [K, p], falling along each row; probability: [K, p], each row sums to 1; share: [K], how often each window comes.
    Rows with fewer points than p are filled up with points of probability 0.
    """

    T: Tensor
    probability: Tensor
    share: Tensor

    @classmethod
    def coarse(cls, K: int, p: int = 4, start_share: float = 0.4) -> "TimePoints":
        """The p points a window that sampling with K p steps visits; the window's start comes with start_share.

        4-step sampling visits the starts only, so they are worth more than 1 / p. The other points share the rest.
        Raises ValueError for p that does not fit between the timesteps, or a share outside 0..1.
        """
        if not (K >= 1 and 1 <= p <= NUM_TIMESTEPS // K):
            raise ValueError(
                f"{p} points in each of {K} windows, expected 1 to {NUM_TIMESTEPS} points altogether: choose fewer "
                "points or windows."
            )
        if not 0 <= start_share <= 1:
            raise ValueError(f"The share of window starts is {start_share}, expected 0 to 1.")
        T = torch.from_numpy(timesteps(K * p, K)).reshape(K, p)
        probability = torch.full((K, p), (1 - start_share) / max(p - 1, 1), dtype=torch.float64)
        probability[:, 0] = start_share if p > 1 else 1.0
        return cls(T, probability, torch.full((K,), 1 / K, dtype=torch.float64))

    @classmethod
    def uniform(cls, K: int, N: int = NUM_TIMESTEPS) -> "TimePoints":
        """The official grid: t in {1/N, 2/N, ..., 1}, each equally often; an edge belongs to the window it starts.

        Raises ValueError for a grid that leaves a window without a point.
        """
        if not 1 <= K <= N:
            raise ValueError(f"{N} time points for {K} windows, expected at least one for each window.")
        T = NUM_TIMESTEPS * torch.arange(N, 0, -1, dtype=torch.float64) / N
        w = torch.from_numpy(window_of(T.numpy(), window_edges(K)))
        count = torch.bincount(w, minlength=K)
        place = torch.arange(N) - (count.cumsum(0) - count)[w]
        grid, probability = torch.zeros(2, K, int(count.max()), dtype=torch.float64)
        grid[w, place] = T
        probability[w, place] = 1 / count[w].double()
        return cls(grid, probability, count / N)

    @property
    def K(self) -> int:
        return len(self.T)

    def windows(self, U: Tensor) -> Tensor:
        """The window of each uniform number U in [0, 1), any shape; int64."""
        return _drawn(self.share, U)

    def timesteps(self, w: Tensor, U: Tensor) -> Tensor:
        """A timestep T in 0..1000 inside each window w, from uniform numbers U in [0, 1); shape of w, float64."""
        return self.T[w, _drawn(self.probability[w], U)]


def _drawn(probability: Tensor, U: Tensor) -> Tensor:
    """The index at which the running sum of the probabilities (last dimension) passes U; never one of probability 0."""
    passed = probability.cumsum(dim=-1)
    return (U[..., None] * passed[..., -1:] >= passed).sum(dim=-1).clamp(max=probability.shape[-1] - 1)


def window_start(chord: WindowChord, w: Tensor, x0: Tensor, noise: Tensor, pure_noise: bool = False) -> Tensor:
    """X_s = x0 + sigma_s noise, that is z_s = c_s x0 + s_s noise; w of shape [B], x0 and noise of shape [B, ...].

    With pure_noise the first window starts at z_s = noise, as text to image does: X_s = noise sqrt(1 + sigma_s^2).
    """
    sigma_s = append_dims((chord.s[:-1] / chord.c[:-1])[w], x0)
    X_s = x0 + sigma_s * noise
    if pure_noise:
        X_s = torch.where(append_dims(w == 0, x0), noise * (1 + sigma_s**2).sqrt(), X_s)
    return X_s


@dataclass(frozen=True)
class TeacherWalk:
    """The base model's ODE from each window's start to its end, in n steps between entries of its own noise table.

    entries: [K, n + 1], int64, falling; sigma: [1000], the base's noise levels. Solvers, one call of the model a step:
    "ddim": Euler in sigma, X' = X + (sigma' - sigma) eps, at entries even in t, as the authors do.
    "dpmpp_2m": DPM-Solver++(2M) (Lu et al. 2022), second order, at entries even in log sigma.
    """

    entries: Tensor
    sigma: Tensor
    solver: Solver

    @classmethod
    def plan(cls, alphas_cumprod: Tensor, K: int, n: int, solver: Solver = "dpmpp_2m") -> "TeacherWalk":
        """n steps in each of K windows; the tables in float64 on the CPU (see `to`). K = 1 walks from noise to data.

        Raises ValueError for more steps than a window has entries, or a solver of another name.
        """
        if solver not in SOLVERS:
            raise ValueError(f'The teacher\'s solver is "{solver}", expected one of {", ".join(SOLVERS)}.')
        alpha_bar = host_float64(alphas_cumprod)
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
        edges = [max(int(T) - 1, 0) for T in WindowChord.from_alphas_cumprod(alphas_cumprod, K).edge_timesteps]
        spans = list(pairwise(edges))
        if not 1 <= n <= min(start - end for start, end in spans):
            raise ValueError(
                f"{n} steps in each of {K} windows, expected 1 to {min(start - end for start, end in spans)}: a step "
                "goes from one entry of the base model's noise table to another."
            )
        scale = np.arange(NUM_TIMESTEPS, dtype=np.float64) if solver == "ddim" else np.log(sigma.numpy())
        entries = np.stack([_entries_between(scale, start, end, n) for start, end in spans])
        return cls(torch.from_numpy(entries), sigma, solver)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "TeacherWalk":
        """The same walk with its tables on another device, the noise levels in another dtype."""
        return TeacherWalk(self.entries.to(device), self.sigma.to(dtype).to(device), self.solver)

    @property
    def n(self) -> int:
        return self.entries.shape[1] - 1

    def __call__(self, eps: NoisePredictor, X_s: Tensor, w: Tensor) -> Tensor:
        """X_e from X_s of shape [B, ...], in windows w of shape [B], on the device of the tables.

        eps(X, i) is the base model's noise prediction, guidance included, at X = z / sqrt(alpha_bar[i]); i of shape
        [B] is the entry of the table, 0..999, and as such the timestep that the base model is given.
        """
        entries = self.entries[w]
        X, before = X_s, None
        for i, i_next in pairwise(entries.T):
            sigma, sigma_next = (append_dims(self.sigma[entry], X) for entry in (i, i_next))
            d = eps(X, i)
            if self.solver == "ddim":
                X = X + (sigma_next - sigma) * d
                continue
            x0, h = X - sigma * d, (sigma / sigma_next).log()
            ahead = x0 if before is None else x0 + (x0 - before[0]) * (h / (2 * before[1]))
            X = torch.lerp(ahead, X, sigma_next / sigma)
            before = x0, h
        return X


def _entries_between(scale: Float64, start: int, end: int, n: int) -> np.ndarray:
    """n + 1 falling entries from start to end, as even on the rising scale as whole entries allow."""
    wanted = np.linspace(scale[start], scale[end], n + 1)
    above = np.searchsorted(scale, wanted).clip(1, len(scale) - 1)
    entries = np.where(scale[above] - wanted < wanted - scale[above - 1], above, above - 1)
    entries[0], entries[-1] = start, end
    left = np.arange(n + 1)  # no two the same: down from the start, then up from the end
    entries = np.minimum.accumulate(entries + left) - left
    return np.maximum(entries, end + left[::-1])


class Line(NamedTuple):
    """The straight line of a window, X(sigma) = x0 + sigma eps, for each row; what the student is to learn.

    w: [B], int64; x0 and eps: [B, ...]. Both are of unit size, so a line keeps its precision in 16 bits.
    """

    w: Tensor
    x0: Tensor
    eps: Tensor


def line_through(chord: WindowChord, w: Tensor, X_s: Tensor, X_e: Tensor) -> Line:
    """eps = (X_e - X_s) / (sigma_e - sigma_s), x0 = X_s - sigma_s eps; shapes as in `Line`."""
    sigma = chord.s / chord.c
    sigma_s, sigma_e = (append_dims(edge[w], X_s) for edge in (sigma[:-1], sigma[1:]))
    eps = (X_e - X_s) / (sigma_e - sigma_s)
    return Line(w, X_s - sigma_s * eps, eps)


class Lesson(NamedTuple):
    """What the student is shown and what it should answer: latent z [B, ...], timestep T [B], target m [B, ...]."""

    z: Tensor
    T: Tensor
    m: Tensor


def lesson(prediction_type: PredictionType, chord: WindowChord, line: Line, T: Tensor) -> Lesson:
    """z = c(T) x0 + s(T) eps and the m that a perfect student answers at it; T of shape [B] in each row's window."""
    T = T.to(chord.t)
    c, s = chord.coefficients(T)
    X = line.x0 + append_dims(s / c, line.x0) * line.eps
    m = output(prediction_type, chord, s / c, line.eps, X)
    return Lesson(append_dims(c, X) * X, T, m)
