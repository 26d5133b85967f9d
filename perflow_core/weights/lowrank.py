"""Compressing a weight difference: dW = up down, by randomized SVD (Halko, Martinsson, Tropp 2011)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..host import host_float64

OVERSAMPLING = 16  # extra columns of the random sketch; with two power iterations the kept energy is near the best
POWER_ITERATIONS = 2
NEGLIGIBLE = 1e-5  # of the largest singular value: what float32 leaves where there is none
FIRST_RANK = 32  # where the search for a share of energy begins; doubled until it is found


@dataclass(frozen=True)
class LowRank:
    """dW in two factors of rank r, in the dtype they are stored in.

    up: [out, r]; down: [r, in] or [r, in, kh, kw]; kept = |dW|^2 - |dW - up down|^2, in squared Frobenius norms.
    """

    up: Tensor
    down: Tensor
    kept: float

    @property
    def rank(self) -> int:
        return self.up.shape[1]


def compress(dW: Tensor, rank: int, share: float, dtype: torch.dtype) -> LowRank | None:
    """The factors of a matrix or convolution, dW of shape [out, in, ...] in float32; None where they would be larger.

    share = 0: of that rank. Otherwise of the smallest rank that keeps this share of the energy, 0 < share <= 1, and
    `rank` is not used. Two calls with the same dW give the same factors.
    """
    matrix = dW.flatten(start_dim=1)
    largest = math.ceil(matrix.numel() / sum(matrix.shape)) - 1  # above it the factors hold more numbers than dW
    energy = squared_norm(matrix)
    if energy == 0:
        return _factors(dW, torch.zeros_like(matrix[:, :1]), torch.zeros_like(matrix[:1]), 0.0, dtype)
    rank = min(rank, *matrix.shape)
    if share:
        found = _svd_for_share(matrix, share * energy, largest)
    else:
        found = _svd(matrix, rank) if rank <= largest else None
    if found is None:
        return None
    U, S, V = found
    root = S.sqrt()
    return _factors(dW, U * root, (V * root).T, energy, dtype)


def first_directions(dW: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """up [out, r] and down [r, in, ...] of the nearest matrix of that rank; r is less where dW has less.

    dW: [out, in, ...] in float32.
    """
    U, S, V = _svd(dW.flatten(start_dim=1), rank)
    r = int((NEGLIGIBLE * S[0] < S).sum())
    root = S[:r].sqrt()
    return U[:, :r] * root, (V[:, :r] * root).T.reshape(-1, *dW.shape[1:])


def nearest_of_rank(dW: Tensor, rank: int) -> Tensor:
    """dW with its first `rank` singular values only, the nearest of that rank (Eckart and Young 1936); same shape."""
    U, S, V = _svd(dW.flatten(start_dim=1), rank)
    return (U * S @ V.T).reshape(dW.shape)


def _svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `rank` singular triplets: U [m, r], S [r], V [n, r].

    The random sketch is the same in every call, and the global random state stays as it is. On other devices than CUDA
    the CPU computes: Apple's GPUs have no QR, or one far slower than their CPU's.
    """
    A, cuda = matrix if matrix.is_cuda else matrix.cpu(), matrix.is_cuda
    with torch.random.fork_rng([A.device] if cuda else []):
        (torch.cuda.default_generators[A.device.index] if cuda else torch.default_generator).manual_seed(0)
        U, S, V = torch.svd_lowrank(A, q=min(rank + OVERSAMPLING, *A.shape), niter=POWER_ITERATIONS)
    return U[:, :rank].to(matrix), S[:rank].to(matrix), V[:, :rank].to(matrix)


def _svd_for_share(matrix: Tensor, wanted: float, largest: int) -> tuple[Tensor, Tensor, Tensor] | None:
    rank = min(FIRST_RANK, largest)
    while rank >= 1:
        U, S, V = _svd(matrix, rank)
        kept = host_float64(S).square().cumsum(0)
        if kept[-1] >= wanted:
            r = int((kept < wanted).sum()) + 1
            return U[:, :r], S[:r], V[:, :r]
        rank = min(2 * rank, largest) if rank < largest else 0
    return None


def squared_norm(matrix: Tensor) -> float:
    """Squared Frobenius norm, without a copy; by rows, for one long float32 sum would be off by a thousandth."""
    return float(host_float64(torch.linalg.vector_norm(matrix, dim=-1)).square().sum())


def _factors(dW: Tensor, up: Tensor, down: Tensor, energy: float, dtype: torch.dtype) -> LowRank:
    up, down = up.to(dtype), down.to(dtype)
    lost = squared_norm(torch.addmm(dW.flatten(start_dim=1), up.float(), down.float(), alpha=-1))
    return LowRank(up.contiguous().cpu(), down.reshape(-1, *dW.shape[1:]).contiguous().cpu(), energy - lost)
