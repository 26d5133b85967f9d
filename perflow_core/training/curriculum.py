"""What a run trains on at each step, as a function of the seed and the step, so that nothing has to be stored.

A random number is named by the run's seed, its purpose and a few counters. So a run that was stopped goes on with the
same numbers, and as many processes draw together what one alone would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .time_points import TimePoints


class Purpose(IntEnum):
    """What numbers are for; part of their name, so never renumbered."""

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
    BATCH = 11
    HELD_OUT = 12
    VALIDATION = 13
    MIRROR = 14


def generator(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, *counters])


def uniform(shape: tuple[int, ...], seed: int, purpose: Purpose, *counters: int) -> Tensor:
    """Numbers in [0, 1), float64."""
    return torch.from_numpy(generator(seed, purpose, *counters).random(shape))


def normal(shape: Sequence[int], rows: Sequence[int], seed: int, purpose: Purpose) -> Tensor:
    """Standard normal numbers, float32, [len(rows), *shape]; each row depends on its own number only."""
    out = np.empty((len(rows), *shape), dtype=np.float32)
    for place, row in enumerate(rows):
        generator(seed, purpose, row).standard_normal(dtype=np.float32, out=out[place])
    return torch.from_numpy(out)


@dataclass(frozen=True)
class Rounds:
    """A round has `depth` batches, each used `uses` times, every time in another order and at other timesteps.

    The teacher's trajectories take most of the time; PeRFlow's authors use each of them once. A batch has lanes, one
    for each row or one for all, and each lane has an order of its own.
    """

    depth: int
    uses: int
    seed: int

    @property
    def steps(self) -> int:
        """How many a round has."""
        return self.depth * self.uses

    def number(self, step: int) -> int:
        """The round of a step."""
        return step // self.steps

    def order(self, step: int, lanes: int = 1) -> Tensor:
        """The batch of the round, 0 to depth - 1, that each lane takes at this step; int64, [lanes]."""
        use, place = divmod(step % self.steps, self.depth)
        return _orders(self.depth, lanes, self.seed, self.number(step), use)[place]

    def uniform(self, step: int, lanes: int) -> Tensor:
        """For each lane the number in [0, 1) that chooses its timestep at this step; float64, [lanes]."""
        use, place = divmod(step % self.steps, self.depth)
        return uniform((self.depth, lanes), self.seed, Purpose.POINT, self.number(step), use)[place]

    def of_one_kind(self, step: int, kinds: Tensor, batch: int, process: int = 0) -> Tensor:
        """Rows of the round for the calls of this step, [calls, batch], those of each call of one kind.

        kinds: of each of the round's rows that are this process', int64; of every kind a multiple of the batch.
        """
        use, place = divmod(step % self.steps, self.depth)
        counters = self.number(step), use, process
        return _batches(self.depth, batch, kinds.numpy().tobytes(), self.seed, *counters)[place]


@lru_cache(maxsize=1)
def _batches(depth: int, batch: int, kinds: bytes, seed: int, *counters: int) -> Tensor:
    """All of a round, [depth, calls, batch]; kinds: of int64."""
    random, of_rows = generator(seed, Purpose.LANE, *counters), np.frombuffer(kinds, dtype=np.int64)
    batches = np.lexsort((random.random(len(of_rows)), of_rows)).reshape(-1, batch)
    return torch.from_numpy(random.permutation(batches).reshape(depth, -1, batch))


@lru_cache(maxsize=1)
def _orders(depth: int, lanes: int, seed: int, *counters: int) -> Tensor:
    return uniform((depth, lanes), seed, Purpose.LANE, *counters).argsort(dim=0)


class Draw(NamedTuple):
    """The rows of a batch: [B] indices of examples, their windows w [B], int64, whether each prompt is dropped, and
    where in its range each row's guidance is, 0 to 1.
    """

    examples: list[int]
    w: Tensor
    dropped: list[bool]
    guidance: list[float]


def draw_batch(
    points: TimePoints, groups: Sequence[Sequence[int]], batch_size: int, dropout: float, seed: int, batch: int
) -> Draw:
    """groups: the examples (by index) that may share a batch; dropout: the share of rows; batch: its number in the run.

    The windows are spread over the rows as evenly as their share allows.
    """
    random = generator(seed, Purpose.BATCH, batch)
    sizes = np.array([len(group) for group in groups])
    group = groups[random.choice(len(sizes), p=sizes / sizes.sum())]
    examples = random.choice(np.asarray(group), batch_size, replace=len(group) < batch_size)
    U = (random.permutation(batch_size) + random.random(batch_size)) / batch_size
    dropped = random.random(batch_size) < dropout
    guidance = random.random(batch_size)
    return Draw(examples.tolist(), points.windows(torch.from_numpy(U)), dropped.tolist(), guidance.tolist())
