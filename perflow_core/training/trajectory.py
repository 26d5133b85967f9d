"""The teacher's trajectory: the base model's ODE through a window, solved between entries of its own noise table."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..host import host_float64
from ..sampling.parameterization import NoisePredictor, append_dims
from ..sampling.windows import NUM_TIMESTEPS, Float64, edge_entries

Solver = Literal["dpmpp_2m", "ddim"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)


@dataclass(frozen=True)
class TeacherTrajectory:
    """The base model's ODE from each window's start to its end, in n steps between entries of its own noise table.

    entries: [K, n + 1], int64, falling; sigma: [1000], the base's noise levels. Solvers, one call of the model a step:
    "ddim": Euler in sigma, X' = X + (sigma' - sigma) eps, at entries even in t, as the authors do.
    "dpmpp_2m": DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), second order, at entries even in log sigma.
    """

    entries: Tensor
    sigma: Tensor
    solver: Solver

    @classmethod
    def plan(cls, alphas_cumprod: Tensor, K: int, n: int, solver: Solver = "dpmpp_2m") -> "TeacherTrajectory":
        """n steps in each of K windows; the tables in float64 on the CPU (see `to`). K = 1 goes from noise to data.

        Raises ValueError for more steps than a window has entries, or a solver of another name.
        """
        if solver not in SOLVERS:
            raise ValueError(f'The teacher\'s solver is "{solver}", expected one of {", ".join(SOLVERS)}.')
        alpha_bar = host_float64(alphas_cumprod)
        sigma = ((1 - alpha_bar) / alpha_bar).sqrt()
        spans = list(pairwise(edge_entries(K)))
        most = min(start - end for start, end in spans)
        if not 1 <= n <= most:
            raise ValueError(
                f"{n} steps in each of {K} windows, expected 1 to {most}: a step goes from one entry of the base "
                "model's noise table to another."
            )
        scale = np.arange(NUM_TIMESTEPS, dtype=np.float64) if solver == "ddim" else np.log(sigma.numpy())
        entries = np.stack([_entries_between(scale, start, end, n) for start, end in spans])
        return cls(torch.from_numpy(entries), sigma, solver)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "TeacherTrajectory":
        """The same with its tables on another device, the noise levels in another dtype."""
        return TeacherTrajectory(self.entries.to(device), self.sigma.to(dtype).to(device), self.solver)

    def sample(self, eps: NoisePredictor, noise: Tensor) -> Tensor:
        """X at the end of the first window from z = noise, [B, ...]; with K = 1 the base model's own picture."""
        X_s = noise * (1 + self.sigma[self.entries[0, 0]] ** 2).sqrt()
        return self(eps, X_s, torch.zeros(len(noise), dtype=torch.int64, device=noise.device))

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
