"""Several processes that train as one, each on a batch of its own.

`torchrun --nproc_per_node 2 -m small_model.trainers.train_teacher ...`. With one process nearly all of it does nothing.
On a CPU two processes of one thread each are much faster than one process of two threads: the layers are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, distributed

from .device import DEVICE, ON_GPU


def processes() -> PartialState:
    """Which process this is, of how many. The first call finds the others, which torchrun has started."""
    return PartialState(cpu=not ON_GPU, timeout=timedelta(hours=2))


def mean(number: float) -> float:
    """The mean of the processes' numbers: one clock for all, since the rate follows it."""
    return float(reduce(torch.tensor([number], dtype=torch.float64, device=DEVICE)))


def broadcast(weights: Sequence[Tensor]) -> None:
    """Give every process the first one's weights."""
    if processes().num_processes > 1:
        for weight in weights:
            distributed.broadcast(weight.data, src=0)


def average_gradients(weights: Sequence[Tensor]) -> None:
    """Give every process the mean of their gradients, so that their weights stay equal."""
    if processes().num_processes > 1:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        means = reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
