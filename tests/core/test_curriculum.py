"""What is taught at which step: the same for a seed, every batch as often as said, rows as they are to be spread."""

from collections import Counter

import pytest
import torch

from perflow_core.training.curriculum import BATCHES, TIMES, Curriculum
from perflow_core.training.reflow import TimePoints

ROUND = BATCHES * TIMES


def curriculum(seed=0, groups=((0, 1, 2, 3, 4, 5),), batch_size=4, dropout=0.0):
    return Curriculum(TimePoints.coarse(4, 4), groups, batch_size, dropout, seed)


def test_every_batch_is_taught_as_often_as_said():
    taught = [curriculum().batch(step) for step in range(2 * ROUND)]
    assert taught[:BATCHES] == list(range(BATCHES))
    assert Counter(taught[:ROUND]) == dict.fromkeys(range(BATCHES), TIMES)
    assert Counter(taught[ROUND:]) == dict.fromkeys(range(BATCHES, 2 * BATCHES), TIMES)
    assert taught[BATCHES : 2 * BATCHES] != taught[2 * BATCHES : 3 * BATCHES]


def test_the_same_for_a_seed_and_other_for_another():
    one, same, other = curriculum(seed=2**64 - 1), curriculum(seed=2**64 - 1), curriculum(seed=7)
    w = one.draw(3).w
    assert str(one.draw(3)) == str(same.draw(3))
    assert torch.equal(one.timesteps(5, w), same.timesteps(5, w))
    assert one.draw(3).noise_seed != other.draw(3).noise_seed
    assert one.draw(3).noise_seed != one.draw(4).noise_seed
    times = torch.stack([one.timesteps(step, torch.zeros(64, dtype=torch.int64)) for step in (5, 6)])
    assert not torch.equal(times[0], times[1])


@pytest.mark.parametrize("batch_size", [4, 8])
def test_windows_are_spread_evenly(batch_size):
    for batch in range(20):
        w = curriculum(batch_size=batch_size).draw(batch).w
        assert torch.bincount(w, minlength=4).tolist() == [batch_size // 4] * 4


def test_one_size_a_batch_and_every_example_comes():
    groups = ((0, 2, 4), (1, 3, 5, 6, 7, 8))
    draws = [curriculum(groups=groups, batch_size=3).draw(batch).examples for batch in range(60)]
    assert {frozenset(draw) <= set(groups[0]) for draw in draws} == {True, False}
    assert all(set(draw) <= set(groups[0]) or set(draw) <= set(groups[1]) for draw in draws)
    assert set().union(*draws) == set(range(9))
    assert all(len(set(draw)) == 3 for draw in draws)
    alone = curriculum(groups=((0,),), batch_size=5)
    assert alone.draw(0).examples == [0] * 5


def test_prompts_are_dropped_as_often_as_said():
    drops = [drop for batch in range(500) for drop in curriculum(dropout=0.1).draw(batch).dropped]
    assert sum(drops) / len(drops) == pytest.approx(0.1, abs=0.02)
    assert not any(curriculum().draw(batch).dropped[0] for batch in range(50))


def test_timesteps_are_in_their_windows():
    w = torch.tensor([0, 1, 2, 3])
    for step in range(50):
        T = curriculum().timesteps(step, w)
        inside = (1000 - 250 * w - T >= 0) & (1000 - 250 * w - T < 250)
        assert inside.all()
