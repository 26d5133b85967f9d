"""Muon: momentum whose update is made orthogonal, for the matrices and convolutions of a network.

Each update G [out, ...] is flattened to a matrix and replaced by the nearest matrix with all singular values about 1
(a Newton-Schulz iteration), so that rare directions learn as fast as common ones. Biases, norms and first and last
layers are left to AdamW. Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/ (formulas).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic's coefficients in the paper


def orthogonal(G: Tensor, iterations: int = 5) -> Tensor:
    """About U V^T of each G = U S V^T, for G [batch, n, m].

    X <- (a + b X X^T + c (X X^T)^2) X, from X = G / |G|. Every X is Q G with a polynomial Q of A = G G^T, so the
    iteration works on the smaller square Q alone, which is several times cheaper for long matrices.
    """
    if G.shape[1] > G.shape[2]:
        return orthogonal(G.mT, iterations).mT
    G = G / (G.norm(dim=(1, 2), keepdim=True) + 1e-7)
    A = G @ G.mT
    one = torch.eye(A.shape[1], device=A.device).expand_as(A)
    Q = one
    for _ in range(iterations):
        XXt = Q @ A @ Q
        Q = (_A * one + _B * XXt + _C * XXt @ XXt) @ Q
    return Q @ G


class Muon(torch.optim.Optimizer):
    """W <- (1 - rate decay) W - rate 0.2 sqrt(max(n, m)) orthogonal(M), M the Nesterov momentum of the gradient.

    The factor makes an update as large as AdamW's, so that one rate fits both. Weights of one shape go together.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(weights, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                shapes.setdefault(weight.flatten(1).shape, []).append(weight)
            for shape, weights in shapes.items():
                G = torch.stack([self._momentum(weight, group["momentum"]).flatten(1) for weight in weights])
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                moves = orthogonal(G) * (-group["lr"] * 0.2 * max(shape) ** 0.5)
                for weight, move in zip(weights, moves, strict=True):
                    weight.add_(move.view_as(weight))

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        """M <- momentum M + (1 - momentum) G, and what is between it and G by Nesterov."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None, "Muon takes weights that all have a gradient"
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)


def optimizers_of(
    weights: Iterable[Tensor], ends: Iterable[nn.Module], rate: float, decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """Muon for matrices and convolutions, AdamW for the rest and for the first and last layers `ends`."""
    weights = list(weights)
    left_out = {id(layer.weight) for layer in ends}
    matrices = [weight for weight in weights if weight.ndim > 1 and id(weight) not in left_out]
    taken = {id(weight) for weight in matrices}
    rest = [weight for weight in weights if id(weight) not in taken]
    others = torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=decay)
    return [Muon(matrices, rate, weight_decay=decay), others]
