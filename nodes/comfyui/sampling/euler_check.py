"""Whether a sampler steps as euler does where a window begins: solvers that look back or ahead cross the bend there."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ....perflow_core.errors import counted

Callback = Callable[[int, Tensor, Tensor, int], Any]
ALIKE = 1e-2  # of a step's length


class EulerCheck:
    """A sampling callback that compares x' with x + (sigma' - sigma) (x - x0) / sigma, whatever the sampler is called.

    A GPU is asked for the answer when the run is over, and waits in no step.
    """

    def __init__(self, sigmas: Tensor, starts: Sequence[int], callback: Callback | None):
        """starts: the steps that begin a window, by number; callback: the one that stood here before."""
        self._sigmas, self._starts, self._callback = sigmas.tolist(), starts, callback
        self._expected: tuple[int, Tensor, Tensor] | None = None  # number of the step, x there, length of the step
        self._others: list[Tensor] = []

    def __call__(self, step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        if self._expected is not None and self._expected[0] == step and self._expected[1].shape == x.shape:
            _, expected, length = self._expected
            self._others.append((x - expected).norm() > ALIKE * length)
        self._expected = None
        if step in self._starts and step + 1 < len(self._sigmas):
            sigma, sigma_next = self._sigmas[step : step + 2]
            move = (x - x0) * ((sigma_next - sigma) / sigma)
            self._expected = step + 1, x + move, move.norm()
        if self._callback is not None:
            self._callback(step, x0, x, total_steps)

    def text(self) -> str | None:
        """What is to be said when the run is over; None for euler."""
        others = int(torch.stack(self._others).sum()) if self._others else 0
        if not others:
            return None
        return f"Take euler or PeRFlow Sampler: this sampler steps otherwise in {counted(others, 'window')}"
