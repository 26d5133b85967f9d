"""Every random number of a run, drawn by what it is for and not by when: nothing to store, nothing to lose.

A draw is named by the run's seed, its purpose and a few counters. So a run that was stopped goes on with the same
numbers, and as many processes draw together what one alone would.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What numbers are for; part of a draw's name, so never renumbered."""

    EPOCH = 0
    NOISE = 1
    WINDOW = 2
    DROPOUT = 3
    LANE = 4
    POINT = 5
    POSTERIOR = 6
    SAMPLE = 7
    SHARDS = 8
    PREVIEW = 9
    ADAPTER = 10


def generator(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, *counters])


def uniform(shape: tuple[int, ...], seed: int, purpose: Purpose, *counters: int) -> Tensor:
    """Numbers in [0, 1), float64."""
    return torch.from_numpy(generator(seed, purpose, *counters).random(shape))


def normal(shape: Sequence[int], rows: Sequence[int], seed: int, purpose: Purpose) -> Tensor:
    """Standard normal numbers, float32, [len(rows), *shape]; each row hangs on its own number only."""
    out = np.empty((len(rows), *shape), dtype=np.float32)
    for place, row in enumerate(rows):
        generator(seed, purpose, row).standard_normal(dtype=np.float32, out=out[place])
    return torch.from_numpy(out)


def orders(length: int, lanes: int, seed: int, purpose: Purpose, *counters: int) -> Tensor:
    """A random order of `length` things for each lane; int64, [length, lanes]."""
    return uniform((length, lanes), seed, purpose, *counters).argsort(dim=0)
