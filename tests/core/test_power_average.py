"""The running average of trained weights, against its closed form."""

import contextlib

import numpy as np
import pytest
import torch

from perflow_core.training.power_average import GAMMA, PowerAverage


def averaged(numbers):
    theta = [torch.zeros(2, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)]
    average = PowerAverage(theta)
    for n, number in enumerate(numbers, start=1):
        for weight in theta:
            weight.fill_(number)
        average.update(n)
    return average


def shares(n):
    """Of each step in the average after n: the last has 1 - beta, what was before it the rest."""
    beta = (1 - 1 / np.arange(1, n + 1)) ** (GAMMA + 1)
    return (1 - beta) * np.append(np.cumprod(beta[:0:-1])[::-1], 1.0)


def test_it_is_the_weighted_mean_of_all_steps():
    numbers = np.random.default_rng(1).normal(size=200)
    expected = shares(200) @ numbers
    for value in averaged(numbers).values:
        assert value.numpy() == pytest.approx(np.full(value.shape, expected), rel=1e-12)
    assert shares(200).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("n", [500, 5000])
def test_its_width_is_a_tenth_of_the_run(n):
    """The standard deviation of the place of a step, as a share of the steps."""
    place, share = np.arange(1, n + 1) / n, shares(n)
    width = np.sqrt(share @ place**2 - (share @ place) ** 2)
    assert width == pytest.approx(0.1, abs=2e-3)


def test_the_first_step_has_all_of_it():
    assert averaged([3.0]).values[0].tolist() == [3.0, 3.0]


def test_it_stands_in_the_place_of_the_weights_and_leaves():
    average = averaged([1.0, 2.0])
    theta, mean = average.theta[0].clone(), average.values[0].clone()
    assert not torch.equal(theta, mean)
    with average.in_place():
        assert torch.equal(average.theta[0], mean)
    with contextlib.suppress(KeyError), average.in_place():
        raise KeyError
    assert torch.equal(average.theta[0], theta)
    assert torch.equal(average.values[0], mean)


def test_it_goes_on_from_what_was_kept():
    numbers = np.random.default_rng(2).normal(size=30)
    whole, first = averaged(numbers), averaged(numbers[:20])
    again = PowerAverage([weight.clone() for weight in first.theta])
    again.load([value.clone() for value in first.values])
    for n in range(21, 31):
        for weight in again.theta:
            weight.fill_(numbers[n - 1])
        again.update(n)
    assert all(map(torch.equal, again.values, whole.values))
    with pytest.raises(ValueError, match="zip"):
        again.load(first.values[:1])
