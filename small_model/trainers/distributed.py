"""Several processes that train as one, each on a batch of its own.

`torchrun --nproc_per_node 2 -m small_model.trainers.train_teacher ...`. With one process nearly all of it does nothing.
On a CPU two processes of one thread each are much faster than one process of two threads: the layers are small.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
from torch import Tensor, distributed

from .device import DEVICE, ON_GPU

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))  # of this process


def join() -> None:
    """Find the other processes, which torchrun has started."""
    if ON_GPU:
        torch.cuda.set_device(DEVICE)  # NCCL takes this one
    if WORLD_SIZE > 1:
        distributed.init_process_group("nccl" if ON_GPU else "gloo", timeout=timedelta(hours=2))


def leave() -> None:
    if WORLD_SIZE > 1:
        distributed.destroy_process_group()


def barrier() -> None:
    """Until all processes are here."""
    if WORLD_SIZE > 1:
        distributed.barrier()


def mean(number: float) -> float:
    """The mean of the processes' numbers: one clock for all, since the rate follows it."""
    if WORLD_SIZE == 1:
        return number
    mean = torch.tensor([number], dtype=torch.float64, device=DEVICE)
    distributed.all_reduce(mean)
    return float(mean) / WORLD_SIZE


def broadcast(weights: Sequence[Tensor]) -> None:
    """Give every process the first one's weights."""
    if WORLD_SIZE > 1:
        for weight in weights:
            distributed.broadcast(weight.data, src=0)


def average_gradients(weights: Sequence[Tensor]) -> None:
    """Give every process the mean of their gradients, so that their weights stay equal."""
    if WORLD_SIZE == 1:
        return
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    totals = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, total in zip(gradients, totals, strict=True):
        gradient.copy_((total / WORLD_SIZE).view_as(gradient))
