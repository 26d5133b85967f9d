"""Losses: what a weight makes of an error, and what a step of the optimizer does with them."""

import pytest
import torch

from perflow_core.sampling.parameterization import PREDICTION_TYPES, append_dims, predicted_eps
from perflow_core.training.descent import Descent, NotFiniteError
from perflow_core.training.reflow import Batch, Loss, Reflow, Segment, training_target
from perflow_core.training.time_points import TimePoints
from perflow_core.training.trajectory import TeacherTrajectory


@pytest.fixture
def reflow(alphas_cumprod, chord):
    """Made with its prediction type and its loss."""

    def make(prediction_type="ddim_eps", **loss):
        trajectory = TeacherTrajectory.plan(alphas_cumprod, 4, 1)
        return Reflow(prediction_type, chord, TimePoints.coarse(chord.windows, 4), trajectory, Loss(**loss))

    return make


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_end_point_counts_the_error_of_the_latent_at_the_windows_end(chord, reflow, prediction_type):
    generator = torch.Generator().manual_seed(0)
    x0, noise, d = torch.randn(3, 8, 4, 6, 6, generator=generator, dtype=torch.float64)
    w = torch.arange(8) // 2
    T = torch.tensor([1000.0, 875, 750, 625, 500, 375, 250, 125], dtype=torch.float64)
    segment = Segment(w, x0, noise)
    target = training_target(prediction_type, chord, segment, T)

    def end(m):
        """z_e when every step of the window goes along the eps that m stands for."""
        sigma, edges = chord.sigma(T), chord.s / chord.c
        X = segment.x0 + append_dims(edges[:-1][w], x0) * segment.eps
        e = predicted_eps(prediction_type, chord, sigma, m, target.z / append_dims(chord.signal(sigma), m))
        return append_dims(chord.c[1:][w], X) * (X + append_dims((edges[1:] - edges[:-1])[w], X) * e)

    losses = reflow(prediction_type, weight="end_point").losses(Batch(segment, T, lambda z, T: target.m + d))
    wanted = (end(target.m + d) - end(target.m)).square().mean((1, 2, 3))
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=0)  # the loss squares in float32


def ones(T, w, answer=1.0):
    """A batch whose student answers a number where zeros are right."""
    zeros = torch.zeros(len(w), 4, 2, 2, dtype=torch.float64)
    return Batch(Segment(torch.tensor(w), zeros, zeros), torch.tensor(T), lambda z, T: zeros + answer)


# The scripts' 1 / max(1 - t, 0.1) / 2.3 and t_start / ((1 + K) / 2K).
WEIGHTS = {
    "none": [1.0, 1.0, 1.0, 1.0],
    "reciprocal": [10 / 2.3, 10 / 3 / 2.3, 2 / 2.3, 1 / 2.3],
    "window": [1.6, 1.2, 0.8, 0.4],
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_other_weights(reflow, kind):
    losses = reflow(weight=kind).losses(ones([1000.0, 700, 500, 0], [0, 1, 2, 3]))
    assert losses.tolist() == pytest.approx(WEIGHTS[kind])


def test_huber(reflow):
    losses = reflow(kind="huber", huber_c=0.75, weight="none").losses(ones([500.0], [2]))
    assert losses.item() == pytest.approx(0.5)  # sqrt(1 + 0.75^2) - 0.75


def test_a_step_is_clipped_and_tells_the_losses_by_window(reflow):
    answer = torch.nn.Parameter(torch.tensor(3.0))
    descent = Descent(torch.optim.SGD([answer], lr=1.0), clip=0.5)
    found = reflow(weight="none").step([ones([1000.0, 250, 125], [0, 3, 3], answer)], descent)
    assert found.mean == pytest.approx(9)
    assert found.by_window == pytest.approx({0: 9, 3: 9})
    assert answer.item() == pytest.approx(2.5)  # the gradient is 6
    assert answer.grad is None


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_what_is_no_number_does_not_reach_the_weights(reflow, damage):
    answer = torch.nn.Parameter(torch.tensor(3.0))
    descent = Descent(torch.optim.SGD([answer], lr=1.0), clip=0.5)
    with pytest.raises(NotFiniteError):
        reflow(weight="none").step([ones([1000.0], [0], answer * damage)], descent)
    assert answer.item() == 3.0
