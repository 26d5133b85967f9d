"""Making a delta file: a difference of weights as named tensors, full or low-rank, with an account of what was kept."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .lora_file import ALPHA, DOWN, UP, delta_metadata, lora_pair, whole_name
from .lowrank import compress, squared_norm

WORST = 5  # layers that the report names


@dataclass
class Extraction:
    """A delta being made, weight by weight, as the tensors of a LoRA file, which the stock LoRA loaders read as well.

    rank: of every layer, or share: of its energy that each layer keeps, as for `compress`; both 0 keep everything
    whole. Each tensor is handed to `store` as soon as it is made, or kept in `tensors`.
    """

    rank: int
    share: float
    store: Callable[[str, Tensor], object] | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    energy: float = 0.0  # squared Frobenius norm of the whole difference
    lost: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)  # kept share of each compressed module
    ranks: list[int] = field(default_factory=list)

    def add(self, key: str, dW: Tensor, dtype: torch.dtype) -> None:
        """Take in the difference of one weight, float32 of any shape, to be stored in that dtype.

        Matrices and convolutions are compressed, biases and norms kept whole, and so is what would not become
        smaller. Raises ValueError for NaN or Inf.
        """
        module, _, kind = key.rpartition(".")
        energy = squared_norm(dW.flatten(start_dim=1) if dW.ndim > 1 else dW)
        if not math.isfinite(energy):
            raise ValueError(
                f"The difference at {key} is NaN or Inf, expected finite numbers: one of the two models is damaged, so "
                "load it again or get another copy."
            )
        self.energy += energy
        compressed = None
        if dW.ndim > 1 and kind == "weight" and (self.rank or self.share):
            compressed = compress(dW, self.rank, self.share, dtype)
        if compressed is None:
            whole = dW.to(dtype)
            lost, tensors = float((dW - whole.float()).square().sum()), {whole_name(key): whole.cpu()}
        else:
            lost, tensors = energy - compressed.kept, lora_pair(module, compressed.up, compressed.down)
            self.shares[module] = compressed.kept / energy if energy else 1.0
            self.ranks.append(compressed.rank)
        if not math.isfinite(lost):
            raise ValueError(
                f"The difference at {key} is too large for {str(dtype).removeprefix('torch.')}, which the models have, "
                "expected numbers that fit: one of the two models is damaged or of another kind, so load it again."
            )
        self.lost += lost
        for name, tensor in tensors.items():
            (self.store or self.tensors.__setitem__)(name, tensor)

    @property
    def kept(self) -> float:
        """The share of the difference's energy (squared Frobenius norm) that is in the file, 0 to 1."""
        return 1 - self.lost / self.energy if self.energy else 1.0

    @property
    def worst(self) -> dict[str, float]:
        """The modules that lost most, and what share each kept."""
        return dict(sorted(self.shares.items(), key=lambda item: item[1])[:WORST])

    def metadata(self, **facts: str) -> dict[str, str]:
        """The file's metadata; facts: what the caller adds."""
        worst = ", ".join(f"{module} {share:.4f}" for module, share in self.worst.items())
        return delta_metadata(self.ranks, energy_kept=f"{self.kept:.6f}", worst_layers=worst, **facts)


def largest_names(shapes: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Name and number of dimensions of every tensor that `Extraction` may store, from those of the weights."""
    names = []
    for key, dimensions in shapes:
        parts = [key.rpartition(".")[0] + part for part in (UP, DOWN, ALPHA)] if dimensions > 1 else []
        names += [(name, dimensions) for name in (whole_name(key), *parts)]
    return names


def source_dtype(weights: Iterable[Tensor]) -> torch.dtype:
    """The precision that weights come from: float16, bfloat16 or float32.

    A loader may widen what it reads (ComfyUI does on a CPU), so float32 weights that are all float16 or all bfloat16
    numbers count as such. Weights in 8 bits count as float16: 8 are too few for a difference.
    """
    candidates = [torch.bfloat16, torch.float16]
    for weight in weights:
        if weight.dtype in (torch.float16, torch.bfloat16):
            return weight.dtype
        if weight.dtype.itemsize == 1:
            return torch.float16
        candidates = [dtype for dtype in candidates if torch.equal(weight.to(dtype).to(weight.dtype), weight)]
        if not candidates:
            return torch.float32
    return candidates[0]
