"""Time windows and the integer grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perflow_core.sampling.windows import (
    Windows,
    by_window,
    percent_timestep,
    shared_steps,
    steps_per_window,
    window_of,
)


def test_official_grids(golden):
    grids = [grid for grid in golden("perflow_timesteps")["grids"] if grid["n"] >= grid["K"]]
    assert len(grids) > 60
    for grid in grids:
        assert Windows.even(grid["K"]).timesteps(grid["n"]).tolist() == grid["timesteps"], (grid["K"], grid["n"])


def test_truncation_is_kept_with_its_accidents():
    assert {99, 49} <= set(Windows.even(4).timesteps(20))


def test_first_windows_take_the_extra_steps():
    assert steps_per_window(6, 4) == [2, 2, 1, 1]
    assert steps_per_window(3, 4) == [1, 1, 1, 0]
    assert steps_per_window(2, 4) == [1, 0, 1, 0]


@settings(deadline=None)
@given(n=st.integers(1, 400), K=st.integers(1, 12))
def test_equal_windows_share_by_the_official_rule(n, K):
    edges = Windows.even(K).edges
    if n >= K:
        assert shared_steps(n, edges[:-1] - edges[1:]) == steps_per_window(n, K)


@settings(deadline=None)
@given(lengths=st.lists(st.floats(5, 250), min_size=1, max_size=6), spare=st.integers(0, 30))
def test_spare_steps_go_to_the_longest(lengths, spare):
    """No step could be moved to another window and leave the longest step shorter than that."""
    lengths = np.array(lengths)
    counts = np.array(shared_steps(len(lengths) + spare, lengths))
    assert counts.sum() == len(lengths) + spare
    assert counts.min() >= 1
    longest = (lengths / counts).max()
    assert (lengths / np.maximum(counts - 1, 1e-9) >= longest - 1e-5).all()


def test_an_edge_is_in_the_window_that_it_starts():
    T = np.array([1000, 750.2, 750.05, 750, 749, 500, 1])
    assert window_of(T, Windows.even(4).edges).tolist() == [0, 0, 1, 1, 1, 2, 3]
    assert window_of(np.array([666.0, 333.0]), Windows.even(3).edges).tolist() == [
        1,
        2,
    ]  # the edges are 666.667, 333.333
    assert window_of(T[:4], np.array([1.0, 0.5])).tolist() == [0, 0, 0, 0]  # a path that ends early


def test_edges_inside_a_step():
    """Neither of its ends counts, and an edge between two timesteps is at an end if either of it or its timestep is."""
    assert Windows.even(4).inside(1000, 0).tolist() == [1, 2, 3]
    assert Windows.even(4).inside(750.05, 499.95).tolist() == []
    assert Windows.even(4).inside(750.2, 249.8).tolist() == [1, 2, 3]
    assert Windows.even(3).inside(1000, 666).tolist() == Windows.even(3).inside(666.667, 500).tolist() == []


def test_edges_have_a_tolerance():
    assert [Windows.even(3).is_edge(T) for T in (1000, 666, 666.05, 666.2, 0.05, 500)] == [
        True,
        True,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("K", [1, 3, 4, 7])
def test_beside_an_edge(K):
    for edge in Windows.even(K).edge_timesteps[:-1]:
        assert [Windows.even(K).snapped(edge + x, 100) for x in (-6, -4.9, 0, 4.9, 6)] == [
            edge - 6,
            edge,
            edge,
            edge,
            edge + 6,
        ]
        assert [Windows.even(K).snapped(edge + x, 4) for x in (-2, -1.9, 1.9, 2)] == [edge - 2, edge, edge, edge + 2]
    assert Windows.even(K).snapped(2.0, 100) == 2


@pytest.mark.parametrize(("n", "expected"), [(1, [1000]), (2, [1000, 500]), (3, [1000, 750, 500])])
def test_fewer_steps_than_windows_visit_edges_evenly(n, expected):
    assert Windows.even(4).timesteps(n).tolist() == expected


@pytest.mark.parametrize(
    ("n", "denoise", "expected"),
    [
        (2, 0.5, [500, 250]),
        (4, 0.5, [500, 375, 250, 125]),
        (4, 0.6, [600, 500, 375, 250]),
        (5, 0.6, [600, 500, 375, 250, 125]),
        (7, 0.6, [600, 500, 416, 333, 250, 166, 83]),
        (8, 0.6, [600, 550, 500, 416, 333, 250, 166, 83]),
        (5, 0.76, [760, 750, 625, 500, 250]),
        (3, 0.57, [570, 500, 250]),  # 1000 * 0.57 is not truncated to 569
        (2, 0.6, [600, 250]),  # a begun window counts with the next
        (3, 0.76, [760, 500, 250]),
        (2, 0.76, [760, 500]),
        (2, 0.75, [750, 500]),
        (1, 0.25, [250]),
    ],
)
def test_denoise_shares_the_steps_among_the_windows_left(n, denoise, expected):
    assert Windows.even(4).timesteps(n, denoise).tolist() == expected


def test_path_may_end_early():
    assert Windows.even(4).timesteps(5, 1.0, 0.5).tolist() == [1000, 916, 833, 750, 625]
    assert Windows.even(4).spanned(1.0, 0.5).tolist() == [1.0, 0.75, 0.5]


@settings(deadline=None)
@given(n=st.integers(1, 1200), K=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 10]), percent=st.integers(1, 100))
def test_grid_falls_and_has_the_steps_asked_for(n, K, percent):
    T = Windows.even(K).timesteps(n, percent / 100)
    assert len(T) == n
    assert T[0] == percent * 10
    assert np.all(np.diff(T) < 0)
    assert T[-1] > 0


@settings(deadline=None)
@given(n=st.integers(10, 400), K=st.integers(1, 10))
def test_no_step_crosses_an_edge_with_enough_steps(n, K):
    edges = np.trunc(1000 * Windows.even(K).edges)
    assert set(edges[:-1]) <= set(Windows.even(K).timesteps(n))


@pytest.mark.parametrize("n", range(2, 101))
def test_a_percentage_is_on_no_step(n):
    """Of n even steps, i lie above p = i / n."""
    T = np.trunc(1000 - 1000 * np.arange(n) / n)
    for i in range(1, n):
        assert (percent_timestep(i / n) < T).sum() == i


def test_text_by_window():
    assert by_window(Windows.even(4).timesteps(6), Windows.even(4)) == "1000 875 | 750 625 | 500 | 250"
    assert by_window(Windows.even(4).timesteps(2), Windows.even(4)) == "1000 | 500"
    assert by_window(Windows.even(3).timesteps(5), Windows.even(3)) == "1000 833 | 666 500 | 333"
    assert by_window(np.array([613.7, 500.0]), Windows.even(4)) == "613.7 | 500"
