"""Window grids as sigmas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perflow_core.sampling.alignment import align_to_windows
from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.schedule import End, parse_steps_per_window, window_schedule


def test_ends(chord):
    zero, reference = window_schedule(chord, 4), window_schedule(chord, 4, end="reference")
    assert chord.path_timesteps(zero).tolist() == [1000, 750, 500, 250, 0]
    assert zero[-1] == 0
    assert reference[-1].item() == pytest.approx(0.0291672, abs=1e-7)
    assert torch.equal(zero[:-1], reference[:-1])


@pytest.mark.parametrize(
    ("counts", "denoise", "expected"),
    [
        ([2, 1, 1, 1], 1.0, [1000, 875, 750, 500, 250]),
        ([1, 0, 2, 0], 1.0, [1000, 500, 375]),
        ([9, 9, 2, 1], 0.5, [500, 375, 250]),
        ([9, 2, 1, 1], 0.6, [600, 550, 500, 250]),
    ],
)
def test_steps_per_window(chord, counts, denoise, expected):
    sigmas = window_schedule(chord, 4, denoise, steps_per_window=counts)
    assert chord.path_timesteps(sigmas[:-1]).tolist() == expected


@pytest.mark.parametrize(("denoise", "start"), [(0.502, 500), (0.498, 500), (0.998, 1000), (0.51, 510), (0.003, 3)])
def test_a_start_beside_an_edge_is_on_it(chord, denoise, start):
    assert chord.path_timesteps(window_schedule(chord, 4, denoise))[0] == start


def test_a_start_beside_an_edge_is_its_own_in_a_fine_schedule(chord):
    assert chord.path_timesteps(window_schedule(chord, 200, 0.503))[:3].tolist() == [503, 501, 500]


def test_no_denoise_no_steps(chord):
    assert window_schedule(chord, 4, 0.0).shape == (0,)


def test_wrong_counts_are_told(chord):
    with pytest.raises(ValueError, match=r"3 numbers \(2,1,1\), expected 4"):
        window_schedule(chord, 4, steps_per_window=[2, 1, 1])
    with pytest.raises(ValueError, match=r"\(0,1,1,1\) has no step in the window where the path starts"):
        window_schedule(chord, 4, steps_per_window=[0, 1, 1, 1])


def test_more_steps_than_timesteps_are_told(chord):
    assert (window_schedule(chord, 11, 0.01, "reference").diff() < 0).all()
    with pytest.raises(ValueError, match="51 steps from timestep 10 to 0, expected at most 50"):
        window_schedule(chord, 51, 0.01, "reference")
    with pytest.raises(ValueError, match="501 steps from timestep 100 to 0, expected at most 500"):
        window_schedule(chord, 4, 0.1, steps_per_window=[1, 1, 1, 501])


@settings(deadline=None, max_examples=200)
@given(K=st.integers(1, 100), n=st.integers(1, 1000), denoise=st.floats(0.001, 1), end=st.sampled_from(End.__args__))
def test_every_legal_schedule_falls_and_is_left_alone(alphas_cumprod, K, n, denoise, end):
    """No step has length 0, and alignment knows the list again in float32.

    But for windows whose edges lie between timesteps: a step up to 0.1 above an edge counts as on it.
    """
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    sigmas = window_schedule(chord, min(n, max(int(4990 * denoise), 1)), denoise, end).float()
    assert (sigmas.diff() < 0).all()
    assert 1000 % K or align_to_windows(chord, sigmas) is sigmas


@pytest.mark.parametrize(
    ("K", "n", "denoise"), [(3, 500, 0.42), (6, 250, 0.2), (7, 200, 0.2), (4, 5, 0.6), (3, 3, 1.0)]
)
def test_its_steps_cross_no_edge(alphas_cumprod, K, n, denoise):
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    assert chord.windows.steps_across(chord.path_timesteps(window_schedule(chord, n, denoise))) == 0


def test_one_step_from_almost_nothing(chord):
    assert len(window_schedule(chord, 1, 0.0001)) == 2


def test_text_of_counts():
    assert parse_steps_per_window("  ") is None
    assert parse_steps_per_window("2, 1,1,0") == [2, 1, 1, 0]
    for text in ("2;1;1;1", "2,,1", "a,b", "1.5,1,1,1", "-1,1,1,1"):
        with pytest.raises(ValueError, match="expected whole numbers with commas between"):
            parse_steps_per_window(text)
