"""Where the small networks are trained: on a GPU in bf16 if there is one, else on the CPU; by several processes as one.

`torchrun --nproc_per_node 2 -m small_model.trainers.train_teacher ...`. With one process nearly all of it does nothing.
On a CPU two processes of one thread each are much faster than one process of two threads: the layers are small.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, distributed, nn

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if ON_GPU else torch.device("cpu")
Module = TypeVar("Module", bound=nn.Module)


def placed(module: Module) -> Module:
    """The module on the device, in the layout that convolutions are fast in."""
    return module.to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def as_tensor(pictures: np.ndarray) -> Tensor:
    """Pictures [B, H, W, 3] uint8 as networks take them: [B, 3, H, W] in 0..1, on the device."""
    x = torch.from_numpy(pictures).to(DEVICE).permute(0, 3, 1, 2).float() / 255
    return x.contiguous(memory_format=torch.channels_last)


def arithmetic() -> AbstractContextManager[object]:
    """bf16 on a GPU; weights, losses and optimizers stay float32."""
    return torch.autocast("cuda", torch.bfloat16) if ON_GPU else nullcontext()


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
