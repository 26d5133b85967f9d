"""A running average of the weights that are trained, as wide as a share of the run, however long that is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

GAMMA = 6.94  # its width is a tenth of the steps: sigma_rel = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)) = 0.1


class PowerAverage:
    """A_n = beta A_(n-1) + (1 - beta) theta_n with beta = (1 - 1 / n)^(gamma + 1), after step n = 1, 2, ...

    theta: the weights, of any shapes. So A_n is the mean of theta_k with weights that grow as k^gamma, and a run that
    ends early has a fitting one as well. From: Karras et al., Analyzing and Improving the Training Dynamics of
    Diffusion Models (2024), section 3.1.
    """

    def __init__(self, theta: Sequence[Tensor]):
        self.theta = theta
        self.values = [weight.detach().clone() for weight in theta]

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Take in the weights after step n, the first of which is 1."""
        beta = (1 - 1 / n) ** (GAMMA + 1)
        torch._foreach_lerp_(self.values, [weight.detach() for weight in self.theta], 1 - beta)

    @torch.no_grad()
    def load(self, values: Sequence[Tensor]) -> None:
        """Go on from these. Raises RuntimeError or ValueError for others than theta's shapes and number."""
        for value, given in zip(self.values, values, strict=True):
            value.copy_(given)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in place of the weights inside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, weight in enumerate(self.theta):
            weight.data, self.values[i] = self.values[i], weight.data
