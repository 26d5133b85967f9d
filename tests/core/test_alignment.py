"""Foreign lists of sigmas on the window grid."""

import pytest
import torch

from perflow_core.alignment import align, path_timesteps
from perflow_core.schedule import window_schedule


def sigmas_at(chord, T: list[float]) -> torch.Tensor:
    return torch.cat([chord.sigma(torch.tensor(T, dtype=torch.float64)), torch.zeros(1)]).float()


@pytest.mark.parametrize("n", range(2, 24))
def test_any_full_list_becomes_the_official_one(chord, n):
    rising = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    karras = torch.cat([(14.6146 ** (1 / 7) * (1 - rising) + 0.03 ** (1 / 7) * rising)[:-1] ** 7, torch.zeros(1)])
    karras[0] = chord.sigma(torch.tensor(1000.0, dtype=torch.float64))
    aligned = align(chord, karras)
    assert len(aligned) == n + 1
    assert torch.allclose(aligned, window_schedule(chord, n), rtol=1e-12)


@pytest.mark.parametrize(
    "T",
    [
        [1000, 750, 500, 250],  # the grid itself
        [1000, 900, 800, 750, 500, 250],  # every edge, someone's own steps between
        [1000, 750],  # nothing but edges: KSamplerAdvanced that stops early and forces 0
        [500, 400, 250, 30],
    ],
)
def test_lists_made_on_purpose_are_left_alone(chord, T):
    sigmas = sigmas_at(chord, T)
    assert align(chord, sigmas) is sigmas


def test_rising_and_single_steps_are_left_alone(chord):
    for sigmas in (torch.tensor([0.1, 1.0, 14.6]), torch.tensor([14.6, 0.0]), torch.tensor([14.6]), torch.zeros(0)):
        assert align(chord, sigmas) is sigmas


def test_one_timestep_beside_the_grid_is_put_on_it(chord):
    sigmas = sigmas_at(chord, [1000, 917, 834, 750, 667, 584, 500, 417, 334, 250, 167, 84])
    assert torch.allclose(align(chord, sigmas).double(), window_schedule(chord, 12), rtol=1e-6)


def test_first_and_last_stay(chord):
    sigmas = torch.tensor([9.0, 5.0, 2.0, 1.0])
    aligned = align(chord, sigmas)
    assert aligned[0] == sigmas[0]
    assert aligned[-1] == sigmas[-1]
    T = path_timesteps(chord, aligned)
    assert T[1:-1].tolist() == [750, 500]
    assert aligned.dtype == sigmas.dtype
    assert sigmas.tolist() == [9.0, 5.0, 2.0, 1.0]
