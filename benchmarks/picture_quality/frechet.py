"""The Fréchet distance of two sets of features, each taken as a Gaussian, and the error bars of any such number.

Sources: Dowson and Landau 1982 (the distance); Heusel et al. 2017 (its use on features of pictures); Efron and Stein
1981 (the jackknife).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

GROUPS = 25  # of pictures; each is left out once


@dataclass(frozen=True)
class Gaussian:
    mean: Tensor  # [d]
    covariance: Tensor  # [d, d]

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp(min=0).sqrt() @ vectors.T


class Estimate(NamedTuple):
    value: float
    error: float  # one standard deviation


def gaussian(features: Tensor) -> Gaussian:
    """Mean and covariance (divided by n - 1) of features [n, d], float64."""
    x = features.double()
    return Gaussian(x.mean(0), x.T.cov())


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2), from the eigenvalues of S_b^1/2 S_a S_b^1/2."""
    shared = torch.linalg.eigvalsh(b.root @ a.covariance @ b.root).clamp(min=0).sqrt().sum()
    apart = (a.mean - b.mean).square().sum()
    return float(apart + a.covariance.trace() + b.covariance.trace() - 2 * shared)


def jackknife(statistic: Callable[[Tensor], float], count: int, groups: int = GROUPS) -> Estimate:
    """The statistic of all rows 0..count-1 and its error: (g - 1) / g sum_i (s_i - mean)^2, group i left out in s_i.

    `statistic` takes row numbers. Rows are independent; those of one group are g apart.
    """
    rows = torch.arange(count)
    groups = min(groups, count)
    left_out = torch.tensor([statistic(rows[rows % groups != i]) for i in range(groups)], dtype=torch.float64)
    variance = (groups - 1) / groups * (left_out - left_out.mean()).square().sum()
    return Estimate(statistic(rows), float(variance.sqrt()))
