"""Foreign lists of sigmas on the window grid."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perflow_core.sampling.alignment import align_to_windows
from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.windows import Windows

WINDOWS = Windows.even(4)
COUNTS = [list(counts) for counts in product(range(1, 5), range(5), range(5), range(5))]


def sigmas_at(chord, T: list[float]) -> torch.Tensor:
    return torch.cat([chord.sigma(torch.tensor(T, dtype=torch.float64)), torch.zeros(1)]).float()


def aligned_timesteps(chord, T: list[float], **inputs) -> list[float]:
    """The timesteps of a list after it was aligned, without the end; fractions to the float32 of the list."""
    return chord.path_timesteps(align_to_windows(chord, sigmas_at(chord, T), **inputs)[:-1]).round(2).tolist()


@pytest.mark.parametrize("n", range(2, 24))
def test_any_full_list_becomes_the_official_one(chord, n):
    rising = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    karras = torch.cat([(14.6146 ** (1 / 7) * (1 - rising) + 0.03 ** (1 / 7) * rising)[:-1] ** 7, torch.zeros(1)])
    karras[0] = chord.sigma(torch.tensor(1000.0, dtype=torch.float64))
    aligned = align_to_windows(chord, karras)
    assert len(aligned) == n + 1
    assert torch.allclose(aligned, window_schedule(chord, n), rtol=1e-12)


def test_window_grids_of_any_counts_are_left_alone(chord):
    assert len(COUNTS) == 500
    for counts in COUNTS:
        zero = window_schedule(chord, 4, steps_per_window=counts).float()
        reference = window_schedule(chord, 4, end="reference", steps_per_window=counts).float()
        assert align_to_windows(chord, zero) is zero, counts
        assert align_to_windows(chord, reference, from_noise=True) is reference, counts


@settings(deadline=None)
@given(counts=st.sampled_from(COUNTS), denoise=st.integers(1, 100), data=st.data())
def test_slices_of_window_grids_are_left_alone(chord, counts, denoise, data):
    """As SplitSigmas cuts them, from Window Schedule at any denoise; one that starts just above an edge goes on it."""
    used = counts[next(w for w in range(4) if 100 - 25 * w >= denoise > 75 - 25 * w) :]
    counts = counts[: 4 - len(used)] + [max(used[0], 1), *used[1:]]
    sigmas = window_schedule(chord, 4, denoise / 100, steps_per_window=counts).float()
    first = data.draw(st.integers(0, len(sigmas) - 2))
    part = sigmas[first : data.draw(st.integers(first + 2, len(sigmas)))]
    T = chord.path_timesteps(part)
    assume(WINDOWS.snapped(T[0], min(T[0] - T[1], (T[0] - T[-1]) / (len(T) - 1))) == T[0])
    assert align_to_windows(chord, part) is part


@pytest.mark.parametrize("n", [5, 9, 21, 37, 100, 250, 1000])
def test_slices_of_long_grids_are_left_alone(chord, n):
    sigmas = window_schedule(chord, n).float()
    stride = max(n // 12, 1)
    for first in range(0, n, stride):
        for last in range(first + 1, n + 1, stride):
            part = sigmas[first : last + 1]
            assert align_to_windows(chord, part) is part, (first, last)


@pytest.mark.parametrize("K", [1, 2, 3, 7, 10])
def test_slices_with_other_windows_are_left_alone(alphas_cumprod, K):
    """The grids of 3 and 7 windows stand on whole timesteps beside their edges."""
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    for n in range(1, 24):
        sigmas = window_schedule(chord, n).float()
        for first in range(n):
            part = sigmas[first:]
            assert align_to_windows(chord, part) is part, (n, first)


@pytest.mark.parametrize(
    ("T", "expected"),
    [
        ([1000, 900, 800, 750, 500, 250], [1000, 875, 750, 625, 500, 250]),  # every edge, but uneven between
        ([1000, 750, 375, 250], [1000, 750, 500, 250]),
        ([500, 400, 250, 30], [500, 375, 250, 125]),
        ([1000, 917, 834, 750, 667, 584, 500, 417, 334, 250, 167, 84], window_schedule),  # simple's rounding
    ],
)
def test_all_other_lists_are_aligned(chord, T, expected):
    if expected is window_schedule:
        expected = chord.path_timesteps(window_schedule(chord, len(T))[:-1]).tolist()
    assert aligned_timesteps(chord, T) == expected


def test_lists_that_do_not_fall_and_that_have_no_step_are_left_alone(chord):
    for sigmas in ([0.1, 1.0, 14.6], [14.6, 1.0, 1.0, 0.0], [14.6, 1.0, 2.0, 0.0], [14.6], [], [float("nan")] * 3):
        sigmas = torch.tensor(sigmas)
        assert align_to_windows(chord, sigmas) is sigmas


def test_first_and_last_stay(chord):
    sigmas = torch.tensor([9.0, 5.0, 2.0, 1.0])
    aligned = align_to_windows(chord, sigmas)
    assert aligned[0] == sigmas[0]
    assert aligned[-1] == sigmas[-1]
    T = chord.path_timesteps(aligned)
    assert T[1:-1].tolist() == [750, 500]
    assert aligned.dtype == sigmas.dtype
    assert sigmas.tolist() == [9.0, 5.0, 2.0, 1.0]


class TestStart:
    @pytest.mark.parametrize(
        ("T", "expected"),
        [
            ([500.5, 375.6, 250.75, 125.9], [500, 375, 250, 125]),  # sgm_uniform, 4 steps at denoise 0.5
            ([501, 399, 251, 70], [500, 375, 250, 125]),  # beta
            ([750.25, 625.4, 500.5, 375.6, 250.75, 125.9], [750, 625, 500, 375, 250, 125]),
            ([752, 502, 252, 2], [750, 625, 500, 250]),  # ddim_uniform
            ([748, 400, 200], [750, 500, 250]),
            ([997, 800, 400, 100], [1000, 750, 500, 250]),
            ([500.5], [500]),  # one step
            ([505.5, 300, 100], [505.5, 500, 250]),  # further than any scheduler's rounding
        ],
    )
    def test_beside_an_edge_is_on_it(self, chord, T, expected):
        assert aligned_timesteps(chord, T) == expected

    def test_an_end_beside_an_edge_is_on_it(self, chord):
        """KSamplerAdvanced up to a step: the second half begins on the edge too."""
        sigmas = sigmas_at(chord, [1000, 875.1, 750.25, 625.4, 500.5])[:-1]
        assert chord.path_timesteps(align_to_windows(chord, sigmas)).tolist() == [1000, 875, 750, 625, 500]

    def test_the_fine_steps_of_a_long_list_are_no_rounding(self, chord):
        assert aligned_timesteps(chord, [253, 251, 249, 247, *range(245, 4, -5)])[:3] == [253, 250, 245]

    def test_an_empty_latent_starts_at_pure_noise(self, chord):
        assert aligned_timesteps(chord, [752, 502, 252, 2], from_noise=True) == [1000, 750, 500, 250]
        assert aligned_timesteps(chord, [500, 250], from_noise=True) == [1000, 500]

    def test_above_pure_noise_and_no_number(self, chord):
        """Another model's list, and kl_optimal's of one step."""
        top = window_schedule(chord, 4)[0].item()
        for sigmas in ([80.0, 30.0, 5.0, 0.0], [float("nan"), 0.0]):
            aligned = align_to_windows(chord, torch.tensor(sigmas))
            assert aligned[0].item() == pytest.approx(top)
            assert torch.allclose(aligned.double(), window_schedule(chord, len(sigmas) - 1), rtol=1e-6)

    def test_a_list_that_ends_below_the_path(self, chord):
        """KarrasScheduler's own values: 14.614642 down to 0.0291675, then 0."""
        rho = 14.614642 ** (1 / 7) + torch.linspace(0, 1, 4) * (0.0291675 ** (1 / 7) - 14.614642 ** (1 / 7))
        aligned = align_to_windows(chord, torch.cat([rho**7, torch.zeros(1)]))
        assert chord.path_timesteps(aligned[:-1]).tolist() == [1000, 750, 500, 250]


@settings(deadline=None)
@given(first=st.floats(1, 1000), last=st.floats(0, 0.95), n=st.integers(1, 12), power=st.floats(0.3, 4))
def test_what_is_aligned(chord, first, last, n, power):
    """As many steps, no two of them near, first and last no further off than a rounding, and nothing more to align."""
    T = first * (last + (1 - last) * np.linspace(1, 0, n + 1) ** power)
    sigmas = chord.sigma(torch.from_numpy(T))
    aligned = align_to_windows(chord, sigmas)
    assert len(aligned) == n + 1
    found = chord.path_timesteps(aligned)
    assert abs(found[0] - T[0]) < 5.01
    assert abs(found[-1] - T[-1]) < 5.01
    fair = (found[0] - found[-1]) / n  # even steps would be that long
    assert all(a - b >= min(5, fair / 2 - 1) - 1e-3 for a, b in pairwise(found))
    assert torch.equal(align_to_windows(chord, aligned), aligned)
