"""In which steps a Prompt-to-Prompt edit takes the source's attention."""

import torch
from torch import Tensor


def cross_alpha(steps: int, window: Tensor) -> Tensor:
    """alpha[i] = 1 for the steps int(b0 (n + 1)) <= i < int(b1 (n + 1)), else 0: the cross attention that is edited.

    window [..., 2] holds b0, b1 in 0..1, once or for every token; returns [n + 1, ...] in float64. The authors count
    n + 1 steps here and n in `self_active`.
    """
    b0, b1 = (window.double() * (steps + 1)).trunc().unbind(-1)
    i = torch.arange(steps + 1, dtype=torch.float64).reshape(-1, *[1] * b0.ndim)
    return ((b0 <= i) & (i < b1)).double()


def self_active(steps: int, share: float) -> Tensor:
    """Whether the target's self attention is the source's in a step, i < int(n share); [n], boolean."""
    return torch.arange(steps) < int(steps * share)


def step_of(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """The step that a model call at `sigma` belongs to, of the list [n + 1] that is sampled; both on one device.

    A call between two levels (a second-order solver's, a step that is divided) belongs to the step around it. The list
    falls, or rises (from picture to noise). Returns a 0-dim tensor: nothing waits for the device.
    """
    inner = sigmas[1:-1]
    if inner.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=sigma.device)
    tolerance = 1e-4 * inner  # float noise around a level
    fallen, risen = inner + tolerance >= sigma, inner - tolerance <= sigma
    return torch.where(sigmas[0] >= sigmas[-1], fallen, risen).sum()
