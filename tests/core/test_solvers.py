"""Piecewise solvers: reference numbers, order of accuracy, and that no step crosses an edge."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.parameterization import append_dims, denoised
from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.solvers import SOLVERS, sample_ab2, sample_euler, sample_heun, split_at_edges

INSIDE = torch.tensor([740.0, 510.0], dtype=torch.float64)


class ReferenceModel:
    """The analytic UNet of tests/golden behind the chord, in float64; remembers the timesteps."""

    def __init__(self, reference, case, chord):
        self.reference, self.case, self.chord = reference, case, chord
        self.seen: list[float] = []

    def __call__(self, X, sigma):
        z, T = append_dims(self.chord.signal(sigma), X) * X, self.chord.timestep(sigma)
        self.seen.append(T[0].item())
        m = self.output("model_cond", z, T)
        if self.case["cfg"] != 1:
            m_uncond = self.output("model_uncond", z, T)
            m = m_uncond + self.case["cfg"] * (m - m_uncond)
        return denoised(self.case["prediction_type"], self.chord, sigma, m, X)

    def output(self, constants, z, T):
        p = self.reference[constants]
        return p["A"] * torch.tanh(p["a"] * z + p["b"] * append_dims(T, z) / 1000 + p["c"]) + p["B"] * z


def test_reference_numbers(golden, alphas_cumprod):
    reference = golden("perflow_t2i")
    cases = [case for case in reference["cases"] if 1000 % case["K"] == 0]
    assert len(cases) == 21
    for case in cases:
        chord = WindowChord.from_alphas_cumprod(alphas_cumprod, case["K"])
        model = ReferenceModel(reference, case, chord)
        X = torch.tensor(reference["x_init"], dtype=torch.float64).reshape(reference["shape"]) / chord.c[0]
        sigmas = window_schedule(chord, case["steps_requested"], end="reference")
        z = chord.c[-1] * sample_euler(model, X, sigmas, chord=chord)
        expected = torch.tensor(case["final"], dtype=torch.float64).reshape(reference["shape"])
        # Fewer steps than windows: the piecewise solver takes K steps, as the official scheduler does.
        assert model.seen == case["timesteps"], case["id"]
        assert (z - expected).abs().max() < 1e-9, case["id"]


def smooth(X, sigma):
    """A denoiser with dX/dsigma = -0.8 X / sigma + cos(sigma), curved everywhere."""
    level = append_dims(sigma, X)
    return X - level * (-0.8 * X / level + torch.cos(level))


def error(solver, chord, n: int) -> float:
    """Against 4096 steps of the same solver, inside one window."""
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def solve(n):
        high, low = chord.sigma(INSIDE)
        return solver(smooth, start, torch.linspace(high, low, n + 1, dtype=torch.float64), chord=chord)

    return (solve(n) - solve(4096)).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("ab2", 2)])
def test_order_of_accuracy_inside_a_window(chord, name, order):
    ratio = error(SOLVERS[name], chord, 32) / error(SOLVERS[name], chord, 64)
    assert ratio == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("n", [1, 2, 4, 6, 13])
def test_straight_paths_are_followed_exactly(chord, solver, n):
    """Each window has a slope of its own; within it the path is straight."""
    slopes = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)

    def bent(X, sigma):
        return X - append_dims(sigma * slopes[chord.window(sigma)], X)

    start = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    found = solver(bent, start, window_schedule(chord, n), chord=chord)
    edges = chord.sigma(torch.tensor(chord.windows.edge_timesteps[:-1], dtype=torch.float64))
    lengths = torch.cat([edges, edges.new_zeros(1)]).diff()
    assert (found - (slopes * lengths).sum()).abs().max() < 1e-9


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_no_step_crosses_an_edge(chord, n):
    edges = [sigma for sigma in chord.sigma(torch.tensor([750.0, 500, 250], dtype=torch.float64)).tolist()]
    karras = torch.linspace(14.6**0.2, 0.03**0.2, n + 1, dtype=torch.float64) ** 5
    for sigmas in (window_schedule(chord, n), karras):
        steps = split_at_edges(sigmas, chord)
        for (sigma, sigma_next), sigma_prime in zip(pairwise(steps.sigmas), steps.sigma_prime, strict=True):
            assert not any(sigma_next < e - 1e-9 and e + 1e-9 < sigma for e in edges)
            assert sigma_next <= sigma_prime + 1e-12 < sigma


def test_heun_calls_the_model_at_the_end_from_inside_the_window(chord):
    seen: list[float] = []

    def model(X, sigma):
        seen.append(chord.timestep(sigma).item())
        return X

    sample_heun(model, torch.zeros(1, 1, 1, 1, dtype=torch.float64), window_schedule(chord, 5), chord=chord)
    assert seen == pytest.approx([1000, 875, 875, 751, 750, 501, 500, 251, 250, 1], abs=1e-6)


def test_ab2_starts_anew_at_every_edge(chord):
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    assert torch.equal(
        sample_ab2(smooth, start, window_schedule(chord, 4), chord=chord),
        sample_euler(smooth, start, window_schedule(chord, 4), chord=chord),
    )
    assert split_at_edges(window_schedule(chord, 6), chord).first == [True, False, True, False, True, True]


def test_without_windows_they_are_the_ordinary_solvers():
    sigmas = torch.tensor([3.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    steps = split_at_edges(sigmas, None)
    assert steps.sigmas == [3.0, 1.0, 0.5, 0.0]
    assert steps.sigma_hat == [3.0, 1.0, 0.5]
    assert steps.sigma_prime == [1.0, 0.5, 0.0]
    assert steps.first == [True, False, False]
    assert steps.reported == [0, 1, 2]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("solver", SOLVERS)
def test_callback_reports_each_of_the_callers_steps_once(chord, solver, n):
    """In order, also where there are fewer steps than windows and back to the noise; of a step in parts the last."""
    start = torch.ones(2, 1, 1, 1)
    falling = window_schedule(chord, n).float()
    for sigmas in (falling, falling.flip(0)):
        states: list[dict[str, Any]] = []
        SOLVERS[solver](smooth, start, sigmas, callback=states.append, chord=chord)
        assert [state["i"] for state in states] == list(range(n))
        steps = split_at_edges(sigmas, chord)
        last = [sigma for sigma, i in zip(steps.sigma_hat, steps.reported, strict=True) if i is not None]
        assert [float(state["sigma"]) for state in states] == pytest.approx(last)
    assert states[0].keys() == {"x", "i", "sigma", "sigma_hat", "denoised"}
    assert torch.equal(states[0]["denoised"], smooth(states[0]["x"], states[0]["sigma"].expand(2)))


def test_extra_args_reach_the_model(chord):
    def model(X, sigma, seed):
        assert seed == 7
        return X

    sample_euler(model, torch.ones(1, 1), window_schedule(chord, 4).float(), {"seed": 7}, chord=chord)


@pytest.mark.parametrize("solver", [sample_euler, sample_heun, sample_ab2])
@pytest.mark.parametrize("steps", [1, 4, 6, 8])
def test_a_rising_list_goes_the_way_back(chord, solver, steps):
    """Where the path is straight in every window, from the picture to the noise and down again is no change."""
    slopes = torch.tensor([0.3, -1.2, 0.7, 2.0], dtype=torch.float64)

    def straight(X, sigma):
        return X - append_dims(sigma * slopes[chord.window(sigma)], X)

    picture = torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    falling = window_schedule(chord, steps)
    noise = solver(straight, picture, falling.flip(0), chord=chord)
    assert (noise - picture).abs().max() > 1
    assert torch.allclose(solver(straight, noise, falling, chord=chord), picture, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [4, 8])
def test_euler_goes_back_the_way_it_came(chord, steps):
    """On a bent path the rising step solves the falling one, where heun and ab2 take a step of their own."""

    def bent(X, sigma):
        level = append_dims(sigma, X)
        return X - level * torch.tanh(X / (1 + level))

    picture = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    falling = window_schedule(chord, steps)

    def lost(solver):
        noise = solver(bent, picture, falling.flip(0), chord=chord)
        return float((sample_euler(bent, noise, falling, chord=chord) - picture).norm() / picture.norm())

    assert lost(sample_euler) < 0.1 * lost(sample_ab2)


def test_rising_steps_begin_inside_their_window(chord):
    """Each part of a step is in one window and calls the model there, one timestep above an edge."""
    rising = chord.sigma(torch.tensor([0.0, 250.0, 400.0, 1000.0], dtype=torch.float64))
    steps = split_at_edges(rising, chord)
    assert steps.reported == [0, 1, None, None, 2]
    called = chord.timestep(torch.tensor(steps.sigma_hat, dtype=torch.float64))
    assert [round(T) for T in called.tolist()] == [1, 251, 400, 501, 751]
    ends = chord.timestep(torch.tensor(steps.sigmas[1:], dtype=torch.float64))
    assert [round(T) for T in ends.tolist()] == [250, 400, 500, 750, 1000]
