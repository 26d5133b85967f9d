"""Rectified flow and rectified diffusion in float64, and even steps out of any list."""

import numpy as np
import pytest
import torch
from analytic_function import guided, latent, start
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perflow_core.sampling import phased
from perflow_core.sampling.noise_tables import linear_beta_sigmas
from perflow_core.sampling.rectified import FlowPath, TablePath, align_evenly
from perflow_core.sampling.solvers import sample_euler

TOLERANCE = 1e-9
FLOW, TABLE = FlowPath(), TablePath(linear_beta_sigmas())


def even(path, n):
    """n even steps from pure noise to data, aligned out by the code under test from a list that is not even."""
    top = path.sigma(np.array([1000.0]))[0]
    return align_evenly(path, top * torch.linspace(1, 0, n + 1, dtype=torch.float64) ** 3)


@pytest.mark.parametrize("case", range(5))
def test_rectified_flow_equals_the_official_numbers(golden, case):
    """x0 = x + sigma v, told 1000 sigma."""
    reference = golden("instaflow")
    case = reference["cases"][case]
    told = []

    def model(x, sigma):
        told.append(float(1000 * sigma))
        return x + sigma * guided(reference, x, told[-1], case["cfg"])

    found = sample_euler(model, start(reference), even(FLOW, case["steps"]))
    assert (found - latent(reference, case["final"])).abs().max() < TOLERANCE
    assert told == pytest.approx(case["timesteps"], abs=1e-9)


@pytest.mark.parametrize("case", range(2))
def test_rectified_diffusion_equals_the_official_numbers(golden, case):
    """x0 = X - sigma eps with X = x / sqrt(ab), down to the lowest level of the table, and back to x."""
    reference = golden("rectified_diffusion")
    case = reference["cases"][case]
    table = linear_beta_sigmas()
    T = phased.trailing(case["steps"])
    assert T.tolist() == case["timesteps"]

    def model(X, sigma):
        t = int((table - sigma).abs().argmin())
        return X - sigma * guided(reference, X / (1 + sigma**2).sqrt(), t, case["cfg"])

    sigmas = torch.cat([table[T], table[:1]])
    X = start(reference) * (1 + sigmas[0] ** 2).sqrt()
    found = sample_euler(model, X, sigmas) / (1 + sigmas[-1] ** 2).sqrt()
    assert (found - latent(reference, case["final"])).abs().max() < TOLERANCE
    assert align_evenly(TABLE, sigmas) is sigmas


def test_table_of_linear_betas():
    sigmas = linear_beta_sigmas()
    assert sigmas[-1].item() == pytest.approx(25.146114, abs=1e-6)
    assert sigmas[0].item() == pytest.approx(0.029167, abs=1e-6)
    assert (sigmas.diff() > 0).all()


@pytest.mark.parametrize("n", range(1, 48))
def test_even_steps_on_the_table_are_the_trailing_grid(n):
    assert torch.allclose(even(TABLE, n)[:-1], linear_beta_sigmas()[phased.trailing(n)], rtol=1e-12)


@example(n=2, power=0.99999, first=1.0, last=0.0, table=False)
@settings(deadline=None)
@given(
    n=st.integers(1, 40),
    power=st.floats(0.2, 7),
    first=st.floats(0.05, 1),
    last=st.sampled_from([0.0, 0.03]),
    table=st.booleans(),
)
def test_first_last_and_number_stay(n, power, first, last, table):
    path = TABLE if table else FLOW
    scale = path.sigma(np.array([1000.0]))[0]
    sigmas = scale * (last + (first - last) * torch.linspace(1, 0, n + 1, dtype=torch.float64) ** power)
    aligned = align_evenly(path, sigmas)
    assert len(aligned) == n + 1
    assert aligned[0] == sigmas[0]
    assert aligned[-1] == sigmas[-1]
    T = path.timestep(aligned.numpy())
    gaps = -np.diff(T)
    kept = aligned is sigmas  # even as far as `tolerances.SAME_LEVEL` tells
    even_to = 2 if table else 0.02 if kept else 1e-9  # the table has whole timesteps, and first and last none
    assert gaps.max() - gaps.min() <= even_to
    assert torch.equal(align_evenly(path, aligned), aligned)


@pytest.mark.parametrize("path", [FLOW, TABLE], ids=["flow", "table"])
class TestStart:
    def top(self, path):
        return path.sigma(np.array([1000.0]))[0]

    def test_an_empty_latent_starts_at_pure_noise(self, path):
        sigmas = self.top(path) * torch.tensor([0.752, 0.502, 0.252, 0.002, 0.0])  # ddim_uniform
        assert torch.allclose(align_evenly(path, sigmas, from_noise=True).double(), even(path, 4), rtol=1e-6)
        assert align_evenly(path, sigmas)[0] == sigmas[0]

    def test_above_pure_noise_and_no_number(self, path):
        """Another model's list, and kl_optimal's of one step."""
        top = self.top(path)
        assert align_evenly(path, top * torch.tensor([14.6, 1.6, 0.0]))[0] == pytest.approx(top)
        assert align_evenly(path, torch.tensor([float("nan"), 0.0])).tolist() == pytest.approx([top, 0.0])

    def test_the_callers_list_is_not_changed(self, path):
        sigmas = torch.tensor([0.9, 0.2, 0.1])
        aligned = align_evenly(path, sigmas)
        assert aligned.dtype == sigmas.dtype
        assert sigmas.tolist() == pytest.approx([0.9, 0.2, 0.1])
        assert not torch.equal(aligned, sigmas)


@pytest.mark.parametrize("sigmas", [[0.0, 0.5, 1.0], [1.0, 0.5, 0.8, 0.0], [1.0, 0.5, 0.5, 0.0], [1.0], []])
def test_lists_that_do_not_fall_are_left_alone(sigmas):
    sigmas = torch.tensor(sigmas)
    assert align_evenly(FLOW, sigmas, from_noise=True) is sigmas


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 25])
def test_even_lists_are_left_alone(n):
    """In float32, as a scheduler makes them."""
    sigmas = torch.linspace(1, 0, n + 1)
    assert align_evenly(FLOW, sigmas) is sigmas
    assert align_evenly(FLOW, sigmas, from_noise=True) is sigmas
