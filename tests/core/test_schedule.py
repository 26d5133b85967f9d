"""Window grids as sigmas."""

import pytest
import torch

from perflow_core.schedule import parse_steps_per_window, window_schedule


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


def test_text_of_counts():
    assert parse_steps_per_window("  ") is None
    assert parse_steps_per_window("2, 1,1,0") == [2, 1, 1, 0]
    for text in ("2;1;1;1", "2,,1", "a,b", "1.5,1,1,1", "-1,1,1,1"):
        with pytest.raises(ValueError, match="expected whole numbers with commas between"):
            parse_steps_per_window(text)
