"""Aspect buckets: pictures are brought to sizes of about one area, and come in groups of one size.

The sizes are those of kohya's sd-scripts: for each width that is a multiple of a step the largest height for which the
area is not above that of the resolution, and the same turned round; and a square.
"""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perflow_core.training.curriculum import Purpose, generator

from .config import Config, DataConfig

Integers = NDArray[np.int64]


class Size(NamedTuple):
    """Of a picture, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def used(data: DataConfig) -> bool:
    """The teacher's own pictures have the resolution's size."""
    return data.buckets and data.kind != "prompts"


@dataclass(frozen=True)
class Buckets:
    """The sizes that pictures are brought to; one alone is a square where there are no buckets."""

    sizes: tuple[Size, ...]

    @classmethod
    def of(cls, data: DataConfig) -> "Buckets":
        if not used(data):
            return cls.square(data.resolution)
        return cls(_sizes(data.resolution, data.bucket_step, data.max_aspect))

    @classmethod
    def square(cls, side: int) -> "Buckets":
        return cls((Size(side, side),))

    @property
    def largest(self) -> Size:
        """Of one area the least long."""
        return max(self.sizes, key=lambda size: (size.width * size.height, min(size)))

    def nearest(self, width: int, height: int) -> Size:
        """That of the nearest aspect ratio, as a quotient: of a picture brought to it the least is cut away."""

        def quotient(size: Size) -> Fraction:
            found = Fraction(size.width * height, size.height * width)
            return max(found, 1 / found)

        return min(self.sizes, key=quotient)


def _sizes(resolution: int, step: int, max_aspect: float) -> tuple[Size, ...]:
    square = resolution // step * step
    found = {Size(square, square)}  # also where the area has room for a longer one
    for side in range(step, resolution**2 // step + 1, step):
        other = resolution**2 // side // step * step
        if max(side, other) <= max_aspect * min(side, other):
            found |= {Size(side, other), Size(other, side)}
    return tuple(sorted(found))


def together(config: Config) -> int:
    """How many examples in a row have one size: those that the teacher takes at a time, whole batches of them."""
    batch = config.optimizer.batch_size
    return batch * max(config.cache.teacher_batch // batch, 1) if used(config.data) else 1


class Epochs:
    """Examples without end: every epoch has each of them once, in an order of its own.

    They come in groups of one kind, `size` of them. An example waits until so many of its kind have come, from one
    epoch to the next if need be. So none is left out, and none comes again before all others of its kind have come.
    What comes at a number is a function of the seed and that number alone.
    """

    def __init__(self, kinds: Sequence[Hashable], size: int, seed: int):
        """kinds: of each example of an epoch."""
        self.size, self.seed = size, seed
        number = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
        self.kinds = np.array([number[kind] for kind in kinds], dtype=np.int64)
        self.counts = np.bincount(self.kinds)
        self._in_order = lru_cache(maxsize=2)(self._by_kind)
        self._groups = lru_cache(maxsize=1)(self._complete_in)

    def __getitem__(self, number: int) -> tuple[int, int]:
        """The epoch and the example, an index into kinds."""
        group, place = divmod(number, self.size)
        epoch = bisect_right(range(self._last_epoch(group)), group, key=self._complete_before) - 1
        kinds, ends = self._groups(epoch)
        i = group - self._complete_before(epoch)
        epoch, place = divmod(int(ends[i]) - self.size + place, int(self.counts[kinds[i]]))
        order, places = self._in_order(epoch)
        return epoch, int(order[places[kinds[i]][place]])

    def _complete_before(self, epoch: int) -> int:
        """How many groups are complete before an epoch begins."""
        return int((epoch * self.counts // self.size).sum())

    def _last_epoch(self, group: int) -> int:
        """One before which the group is complete: of each kind less than a group waits."""
        return (group + 1 + len(self.counts)) * self.size // len(self.kinds) + 2

    def _by_kind(self, epoch: int) -> tuple[Integers, list[Integers]]:
        """The epoch's order, and the places in it of each kind."""
        order = generator(self.seed, Purpose.EPOCH, epoch).permutation(len(self.kinds))
        places = np.argsort(self.kinds[order], kind="stable")
        return order, np.split(places, np.cumsum(self.counts)[:-1])

    def _complete_in(self, epoch: int) -> tuple[Integers, Integers]:
        """The groups that an epoch completes, as they do: the kind of each, and how many of it have come then."""
        when, kinds, ends = [], [], []
        for kind, places in enumerate(self._in_order(epoch)[1]):
            before = epoch * int(self.counts[kind])
            first = before - before % self.size + self.size
            ends.append(np.arange(first, before + len(places) + 1, self.size))
            when.append(places[ends[-1] - before - 1])
            kinds.append(np.full_like(ends[-1], kind))
        order = np.argsort(np.concatenate(when))
        return np.concatenate(kinds)[order], np.concatenate(ends)[order]
