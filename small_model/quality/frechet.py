"""The Fréchet distance of two sets of features, each taken as a Gaussian, and the error bars of any such number.

Sources: Dowson and Landau 1982 (the distance); Heusel et al. 2017 (its use on features of pictures); Quenouille 1956
and Efron and Stein 1981 (the jackknife); Chong and Forsyth 2020 (the bias of few pictures falls with 1 / n).
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


def jackknife(
    statistic: Callable[[Tensor], float], count: int, groups: int = GROUPS, unbiased: bool = False
) -> Estimate:
    """The statistic s of all rows and its error, sqrt((g - 1) / g sum_i (s_i - mean)^2), s_i without group i.

    `statistic` takes row numbers 0..count-1. Rows are independent; those of one group are g apart. With `unbiased` the
    value is the mean of the pseudo-values.
    """
    pseudo = pseudo_values(statistic, count, groups)
    value = float(pseudo.mean()) if unbiased else statistic(torch.arange(count))
    return Estimate(value, float(pseudo.std() / len(pseudo) ** 0.5) if len(pseudo) > 1 else 0.0)


def pseudo_values(statistic: Callable[[Tensor], float], count: int, groups: int = GROUPS) -> Tensor:
    """g s - (g - 1) s_i [g]: in their mean a bias that falls with 1 / count, as the Fréchet distance's, cancels."""
    rows = torch.arange(count)
    groups = min(groups, count)
    left_out = torch.tensor([statistic(rows[rows % groups != i]) for i in range(groups)], dtype=torch.float64)
    return groups * statistic(rows) - (groups - 1) * left_out
