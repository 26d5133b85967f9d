"""Numbers in float64 on the host, whatever device they come from."""

import torch
from torch import Tensor


def host_float64(tensor: Tensor) -> Tensor:
    """The values in float64 on the CPU; the same shape.

    In two moves, for `tensor.to("cpu", torch.float64)` converts on the device that the tensor comes from, and there are
    devices without float64 (Apple's, some of Intel's).
    """
    return tensor.detach().to("cpu").to(torch.float64)
