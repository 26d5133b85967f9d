"""What a training run teaches at each step, as a function of the seed and the step: a resumed run goes on alike.

The teacher's walks cost most of the time, so every batch of lines is taught several times, each time at other time
points: a round draws its batches one by one, then goes through them again in other orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .reflow import TimePoints

BATCHES = 16  # in a round
TIMES = 4  # that each batch is taught; PeRFlow's authors teach a walk's end point once


class Draw(NamedTuple):
    """The rows of a batch: which examples, in which windows, whether the prompt is dropped, and the noise's seed.

    examples: [B] indices; w: [B], int64; dropped: [B], bool.
    """

    examples: list[int]
    w: Tensor
    dropped: list[bool]
    noise_seed: int


@dataclass(frozen=True)
class Curriculum:
    """groups: the examples (by index) that may share a batch, those of one size; dropout: the share of rows."""

    points: TimePoints
    groups: Sequence[Sequence[int]]
    batch_size: int
    dropout: float
    seed: int

    def round(self, step: int) -> int:
        return step // (BATCHES * TIMES)

    def batch(self, step: int) -> int:
        """The number of the batch that a step teaches, counted through all rounds."""
        turn, place = divmod(step % (BATCHES * TIMES), BATCHES)
        if turn:  # the first turn draws the batches, the others go through them in another order
            place = int(self._random(1, self.round(step), turn).permutation(BATCHES)[place])
        return self.round(step) * BATCHES + place

    def round_of(self, batch: int) -> int:
        return batch // BATCHES

    def draw(self, batch: int) -> Draw:
        """The rows of a batch. The windows are spread over its rows as evenly as their share allows."""
        random = self._random(2, batch)
        sizes = np.array([len(group) for group in self.groups])
        group = self.groups[random.choice(len(sizes), p=sizes / sizes.sum())]
        examples = random.choice(np.asarray(group), self.batch_size, replace=len(group) < self.batch_size)
        U = (random.permutation(self.batch_size) + random.random(self.batch_size)) / self.batch_size
        w = self.points.windows(torch.from_numpy(U))
        dropped = random.random(self.batch_size) < self.dropout
        return Draw(examples.tolist(), w, dropped.tolist(), int(random.integers(2**63)))

    def timesteps(self, step: int, w: Tensor) -> Tensor:
        """Where in its window each row is taught at this step; shape of w, float64."""
        return self.points.timesteps(w, torch.from_numpy(self._random(3, step).random(len(w))))

    def _random(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *numbers])
