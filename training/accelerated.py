"""The optimizer's step by accelerate: on several devices or machines, over several calls, in 16 bits."""

import threading
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from perflow_core.training.descent import Descent


class AcceleratedDescent(Descent):
    """stop_requested: set where this process is to stop. After a step, `stop` is whether any process is."""

    def __init__(
        self,
        accelerator: Accelerator,
        unet: torch.nn.Module,
        optimizer: Any,
        clip: float,
        stop_requested: threading.Event,
    ):
        super().__init__(optimizer, clip, accelerator.scaler)
        self.accelerator, self.unet, self.stop_requested, self.stop = accelerator, unet, stop_requested, False

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
        requested = losses.new_full((1,), float(self.stop_requested.is_set()))
        total = self.accelerator.reduce(torch.cat([losses.flatten(), requested]), "sum")
        self.stop = float(total[-1]) > 0
        return total[:-1].reshape(losses.shape)

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
