"""What is trained at which step: the same for a seed, every batch as often as it should, rows spread as they should."""

import pytest
import torch

from perflow_core.sampling.windows import Windows
from perflow_core.training.curriculum import Purpose, Rounds, draw_batch, normal
from perflow_core.training.time_points import TimePoints

DEPTH, USES = 16, 4
POINTS = TimePoints.coarse(Windows.even(4), 4)


def draw(batch, seed=0, groups=((0, 1, 2, 3, 4, 5),), batch_size=4, dropout=0.0):
    return draw_batch(POINTS, groups, batch_size, dropout, seed, batch)


@pytest.mark.parametrize("lanes", [1, 3])
def test_every_batch_is_used_as_often_as_it_should(lanes):
    rounds = Rounds(DEPTH, USES, seed=0)
    taken = torch.stack([rounds.order(step, lanes) for step in range(2 * rounds.steps)])
    assert [rounds.number(step) for step in (0, rounds.steps - 1, rounds.steps)] == [0, 0, 1]
    for use in taken.split(DEPTH):
        assert torch.equal(use.sort(dim=0).values, torch.arange(DEPTH)[:, None].expand(-1, lanes))
    orders = {str(use) for use in taken.T.reshape(lanes, -1, DEPTH).flatten(0, 1).tolist()}
    assert len(orders) == 2 * USES * lanes  # no two alike


def test_the_same_for_a_seed_and_other_for_another():
    one, same, other = (Rounds(DEPTH, USES, seed) for seed in (2**64 - 1, 2**64 - 1, 7))
    assert str(draw(3, one.seed)) == str(draw(3, same.seed))
    assert torch.equal(one.uniform(5, 8), same.uniform(5, 8))
    assert not torch.equal(one.uniform(5, 8), other.uniform(5, 8))
    assert not torch.equal(one.uniform(5, 8), one.uniform(6, 8))


def test_noise_hangs_on_the_rows_number_alone():
    both, second = (normal((2, 3), rows, 0, Purpose.NOISE) for rows in ([5, 9], [9]))
    assert torch.equal(both[1], second[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(second, normal((2, 3), [9], 0, Purpose.PREVIEW))


@pytest.mark.parametrize("batch_size", [4, 8])
def test_windows_are_spread_evenly(batch_size):
    for batch in range(20):
        w = draw(batch, batch_size=batch_size).w
        assert torch.bincount(w, minlength=4).tolist() == [batch_size // 4] * 4


def test_one_size_a_batch_and_every_example_comes():
    groups = ((0, 2, 4), (1, 3, 5, 6, 7, 8))
    draws = [draw(batch, groups=groups, batch_size=3).examples for batch in range(60)]
    assert {frozenset(examples) <= set(groups[0]) for examples in draws} == {True, False}
    assert all(set(examples) <= set(groups[0]) or set(examples) <= set(groups[1]) for examples in draws)
    assert set().union(*draws) == set(range(9))
    assert all(len(set(examples)) == 3 for examples in draws)
    assert draw(0, groups=((0,),), batch_size=5).examples == [0] * 5


def test_prompts_are_dropped_as_often_as_they_should():
    dropped = [drop for batch in range(500) for drop in draw(batch, dropout=0.1).dropped]
    assert sum(dropped) / len(dropped) == pytest.approx(0.1, abs=0.02)
    assert not any(draw(batch).dropped[0] for batch in range(50))
