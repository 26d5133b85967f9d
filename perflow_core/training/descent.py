"""The optimizer's step: clipped gradients, losses by window, and a check for NaN and Inf."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

SMALLEST_SCALE = 2.0**-10  # of float16 gradients; below it they are not too small but broken


class NotFiniteError(ArithmeticError):
    """A loss or gradient that is NaN or Inf; the weights are as they were before that step."""


@dataclass(frozen=True)
class WindowLosses:
    """The sum of the rows' losses and the number of rows of each window; float64 on the CPU, [K]."""

    sums: Tensor
    rows: Tensor

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.rows.sum())

    @property
    def by_window(self) -> dict[int, float]:
        """The mean of each window that had a row."""
        return {w: float(self.sums[w] / self.rows[w]) for w in range(len(self.sums)) if self.rows[w] > 0}


class Descent:
    """One process with plain PyTorch; a program with several processes overrides the methods."""

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float, scaler: GradScaler | None = None):
        """clip: the largest norm of the gradient; scaler: of float16 gradients, where there are."""
        self.optimizer, self.clip = optimizer, clip
        self.scaler = scaler or GradScaler(enabled=False)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def is_last(self) -> bool:
        """Whether this is the last of the calls whose gradients add up."""
        return True

    def accumulating(self) -> AbstractContextManager[object]:
        """Around each call."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        torch.autograd.backward(self.scaler.scale(loss))

    def clipped(self) -> float:
        """Clip the gradient; its norm before."""
        self.scaler.unscale_(self.optimizer)
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, self.clip))

    def total(self, losses: Tensor) -> Tensor:
        """The sum over all processes."""
        return losses

    def checked(self, losses: Tensor) -> WindowLosses:
        """Clip; losses: sums and rows, [2, K]. Raises NotFiniteError, before the weights take it in.

        A gradient that overflows float16 is no error: the scaler passes over the step and lowers its scale.
        """
        norm = self.clipped()
        sums, rows = self.total(losses).cpu().double()
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE
        if not (torch.isfinite(sums).all() and (math.isfinite(norm) or overflow)):
            raise NotFiniteError("The loss or its gradient is NaN or Inf.")
        return WindowLosses(sums, rows)

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
