"""The timesteps at which a student is trained: where in each window, and how often."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..sampling.windows import NUM_TIMESTEPS, Windows


@dataclass(frozen=True)
class TimePoints:
    """The timesteps at which a student is trained, window by window, and how often each.

    T: [K, p], falling along each row; probability: [K, p], each row sums to 1; share: [K], how often each window comes.
    Rows with fewer points than p are filled up with points of probability 0.
    """

    T: Tensor
    probability: Tensor
    share: Tensor

    @classmethod
    def coarse(cls, windows: Windows, p: int = 4, start_share: float = 0.4) -> "TimePoints":
        """The p points a window that sampling with p steps in each visits; the window's start comes with start_share.

        4-step sampling visits the starts only, so they are worth more than 1 / p. The other points share the rest.
        Windows outside the span never come.
        Raises ValueError for p that does not fit between the timesteps, or a share outside 0..1.
        """
        K = windows.K
        if not 1 <= p <= NUM_TIMESTEPS // K:
            raise ValueError(
                f"{p} points in each of {K} windows, expected 1 to {NUM_TIMESTEPS} points altogether: choose fewer "
                "points or windows."
            )
        if not 0 <= start_share <= 1:
            raise ValueError(f"The share of window starts is {start_share}, expected 0 to 1.")
        T = torch.from_numpy(windows.grid([p] * K, windows.edges)).reshape(K, p)
        probability = torch.full((K, p), (1 - start_share) / max(p - 1, 1), dtype=torch.float64)
        probability[:, 0] = start_share if p > 1 else 1.0
        share = torch.zeros(K, dtype=torch.float64)
        share[windows.own.start : windows.own.stop] = 1 / len(windows.own)
        return cls(T, probability, share)

    @classmethod
    def uniform(cls, windows: Windows, N: int = NUM_TIMESTEPS) -> "TimePoints":
        """The official grid: t in {1/N, 2/N, ..., 1}, each equally often; an edge belongs to the window it starts.

        Raises ValueError for a grid that leaves a window without a point.
        """
        K = windows.K
        if K > N:
            raise ValueError(f"{N} time points for {K} windows, expected at least one for each window.")
        T = NUM_TIMESTEPS * torch.arange(N, 0, -1, dtype=torch.float64) / N
        w = torch.from_numpy(windows.window_of(T.numpy()))
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
