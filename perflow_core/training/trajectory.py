"""The teacher's trajectory: the base model's ODE through a window, solved between levels of its own.

Stable Diffusion's are the entries of its noise table, where X = x0 + sigma noise. A flow model takes every level, and
X = (1 - sigma) x0 + sigma noise. The ODE is dX / dsigma = d(X) for both: d is the noise, or the velocity.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..host import host_float64
from ..sampling.chord import WindowChord
from ..sampling.parameterization import Derivative, append_dims
from ..sampling.windows import NUM_TIMESTEPS, Float64, Windows, edge_entries

Solver = Literal["dpmpp_2m", "ddim"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


@dataclass(frozen=True)
class TeacherTrajectory:
    """The base model's ODE from each window's start to its end, in n steps between levels of its own.

    entries: [K, n + 1], int64, from the start of each window to its end; sigma: the base's noise levels, which entries
    count; signal: a of X = a x0 + sigma noise at each. Solvers, one call of the model a step:
    "ddim": Euler in sigma, X' = X + (sigma' - sigma) d.
    "dpmpp_2m": DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), second order in log(sigma / a).
    Where the steps stand: Stable Diffusion's even in t for ddim, at the entries round(1000 t - 1) of the authors'
    `PFODESolver`, and even in log sigma for dpmpp_2m; a flow model's even in the time before its shift. (The authors'
    steps end 1000 // (K n) entries further on, which is not always where the next one begins; here it is.)
    """

    entries: Tensor
    sigma: Tensor
    signal: Tensor
    solver: Solver

    @classmethod
    def plan(cls, alphas_cumprod: Tensor, K: int, n: int, solver: Solver = "dpmpp_2m") -> "TeacherTrajectory":
        """n steps in each of K windows; the tables in float64 on the CPU (see `to`). K = 1 goes from noise to data.

        Raises ValueError for more steps than a window has entries, or a solver of another name.
        """
        _check_solver(solver)
        alpha_bar = host_float64(alphas_cumprod)
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
        spans = list(pairwise(edge_entries(K)))
        most = min(start - end for start, end in spans)
        if not 1 <= n <= most:
            raise ValueError(
                f"{n} steps in each of {K} windows, expected 1 to {most}: a step goes from one entry of the base "
                "model's noise table to another."
            )
        if solver == "ddim":
            edges = NUM_TIMESTEPS * Windows.even(K).edges - 1  # the last is -1, one before the table
            wanted = [np.rint(np.linspace(*span, n + 1)).astype(np.int64) for span in pairwise(edges)]
        else:
            wanted = [_nearest_entries(np.log(sigma.numpy()), *span, n) for span in spans]
        entries = np.stack([_distinct(some, *span) for some, span in zip(wanted, spans, strict=True)])
        return cls(torch.from_numpy(entries), sigma, torch.ones_like(sigma), solver)

    @classmethod
    def of_flow(cls, chord: WindowChord, n: int, solver: Solver = "dpmpp_2m") -> "TeacherTrajectory":
        """n steps in each of a flow model's windows; in float64 on the CPU. Raises ValueError for another solver."""
        _check_solver(solver)
        T = np.append(chord.windows.grid([n] * chord.K, chord.windows.edges), 0.0)
        sigma = chord.sigma(torch.from_numpy(T))
        entries = n * torch.arange(chord.K)[:, None] + torch.arange(n + 1)
        return cls(entries, sigma, 1 - sigma, solver)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "TeacherTrajectory":
        """The same with its tables on another device, the levels in another dtype."""
        sigma, signal = (table.to(dtype).to(device) for table in (self.sigma, self.signal))
        return TeacherTrajectory(self.entries.to(device), sigma, signal, self.solver)

    def start(self, w: Tensor, x0: Tensor) -> Tensor:
        """The data's part of X_s = a x0 + sigma_s noise; w of shape [B], x0 of shape [B, ...]."""
        return append_dims(self.signal[self.entries[w, 0]], x0) * x0

    def sample(self, d: Derivative, noise: Tensor) -> Tensor:
        """X at the end of the first window from pure noise, [B, ...]; with K = 1 the base model's own picture."""
        top = self.entries[0, 0]
        X_s = noise * (self.signal[top] ** 2 + self.sigma[top] ** 2).sqrt()
        return self(d, X_s, torch.zeros(len(noise), dtype=torch.int64, device=noise.device))

    def __call__(self, d: Derivative, X_s: Tensor, w: Tensor) -> Tensor:
        """X_e from X_s of shape [B, ...], in windows w of shape [B], on the device of the tables.

        d(X, i) is dX / dsigma by the base model, guidance included, at level i of shape [B]: Stable Diffusion's noise
        at X = z / sqrt(alpha_bar[i]), where i is also the timestep that it is given; a flow model's velocity.
        """
        entries = self.entries[w]
        X, before = X_s, None
        for i, i_next in pairwise(entries.T):
            sigma, sigma_next = (append_dims(self.sigma[entry], X) for entry in (i, i_next))
            dX = d(X, i)
            if self.solver == "ddim":
                X = X + (sigma_next - sigma) * dX
                continue
            a, a_next = (append_dims(self.signal[entry], X) for entry in (i, i_next))
            x0, h = X - sigma * dX, (sigma / a).div(sigma_next / a_next).log()
            if before is None:
                ahead = x0
            else:  # a step from pure noise, or one to sigma 0, is of first order: its h is infinite
                ahead = x0 + (x0 - before[0]) * torch.where(h.isfinite(), h / (2 * before[1]), 0.0)
            X = torch.lerp(ahead, X, sigma_next / sigma)
            before = x0, h
        return X


def _check_solver(solver: str) -> None:
    if solver not in SOLVERS:
        raise ValueError(f'The teacher\'s solver is "{solver}", expected one of {", ".join(SOLVERS)}.')


def _nearest_entries(scale: Float64, start: int, end: int, n: int) -> np.ndarray:
    """n + 1 entries from start to end, as even on the rising scale as whole entries allow."""
    wanted = np.linspace(scale[start], scale[end], n + 1)
    above = np.searchsorted(scale, wanted).clip(1, len(scale) - 1)
    return np.where(scale[above] - wanted < wanted - scale[above - 1], above, above - 1)


def _distinct(entries: np.ndarray, start: int, end: int) -> np.ndarray:
    """The same entries from start to end, falling: where two were the same, one is moved."""
    entries[0], entries[-1] = start, end
    left = np.arange(len(entries))  # down from the start, then up from the end
    entries = np.minimum.accumulate(entries + left) - left
    return np.maximum(entries, end + left[::-1])
