"""The optimizer's step by accelerate: on several devices or machines, over several calls, in 16 bits."""

import threading
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from perflow_core.training.descent import Descent


class AcceleratedDescent(Descent):
    """asked: set where this process was asked to stop. `stop` says after a step whether any was."""

    def __init__(
        self, accelerator: Accelerator, unet: torch.nn.Module, optimizer: Any, clip: float, asked: threading.Event
    ):
        super().__init__(optimizer, clip, accelerator.scaler)
        self.accelerator, self.unet, self.asked, self.stop = accelerator, unet, asked, False

    @property
    def is_last(self) -> bool:
        return self.accelerator.sync_gradients

    def accumulating(self) -> AbstractContextManager[object]:
        return self.accelerator.accumulate(self.unet)

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def clipped(self) -> float:
        return float(self.accelerator.clip_grad_norm_(self.parameters, self.clip))

    def total(self, losses: Tensor) -> Tensor:
        asked = losses.new_full((1,), float(self.asked.is_set()))
        total = self.accelerator.reduce(torch.cat([losses.flatten(), asked]), "sum")
        self.stop = float(total[-1]) > 0
        return total[:-1].reshape(losses.shape)

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
