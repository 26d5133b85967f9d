"""Where the small networks are trained: on a GPU in bf16 if there is one, else on the CPU."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

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
