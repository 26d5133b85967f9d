"""The window chord and its inverse."""

import pytest
import torch

from perflow_core.sampling.chord import WindowChord

WINDOWS = [1, 2, 3, 4, 5, 8, 10]


def test_window_constants(golden, alphas_cumprod):
    for K, windows in golden("perflow_windows").items():
        chord = WindowChord.from_alphas_cumprod(alphas_cumprod, int(K))
        ratios = chord.at((chord.s / chord.c)[:-1]).r
        for w, expected in enumerate(windows):
            assert chord.c[w].item() ** 2 == pytest.approx(expected["alpha_bar_s"], rel=1e-12)
            assert chord.c[w + 1].item() ** 2 == pytest.approx(expected["alpha_bar_e"], rel=1e-12)
            assert ratios[w].item() == pytest.approx(expected["ratio_diff_over_ddim"], rel=1e-9)


def test_chord_table(golden, chord):
    table = golden("perflow_chord_table")["K4"]
    T = torch.tensor([row["t"] for row in table], dtype=torch.float64)
    c, s = chord.coefficients(T)
    sigma = chord.sigma(T)
    for i, row in enumerate(table):
        assert c[i].item() == pytest.approx(row["c"], rel=1e-12)
        assert s[i].item() == pytest.approx(row["s"], rel=1e-12)
        assert sigma[i].item() == pytest.approx(row["sigma_ve"], rel=1e-12)


def test_mid_window_levels_are_not_the_base_models(chord, alphas_cumprod):
    stock = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
    on_edges = chord.sigma(torch.tensor([1000.0, 750.0, 500.0, 250.0], dtype=torch.float64))
    assert on_edges.tolist() == pytest.approx(stock[[999, 749, 499, 249]].tolist(), rel=1e-12)
    assert chord.sigma(torch.tensor(875.0, dtype=torch.float64)).item() == pytest.approx(6.429793, abs=1e-6)
    assert stock[874].item() == pytest.approx(7.297352, abs=1e-6)


@pytest.mark.parametrize("K", WINDOWS)
def test_inverse(alphas_cumprod, K):
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    T = torch.linspace(0, 1000, 2001, dtype=torch.float64)  # none just above an edge, where the tolerance is
    sigma = chord.sigma(T)
    assert (sigma.diff() > 0).all()
    assert (chord.timestep(sigma) - T).abs().max() < 1e-9
    c, _ = chord.coefficients(T)
    assert (chord.signal(sigma) - c).abs().max() < 1e-12


@pytest.mark.parametrize("K", WINDOWS)
def test_float32_gives_back_whole_timesteps_exactly(alphas_cumprod, K):
    exact = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    T = torch.arange(1, 1001, dtype=torch.float64)
    found = exact.to("cpu", torch.float32).timestep(exact.sigma(T).float())
    assert found.dtype == torch.float32
    assert torch.equal(found, T.float())


@pytest.mark.parametrize("K", [*WINDOWS, 100])
def test_one_lookup_has_everything(alphas_cumprod, K):
    """Off edges and whole timesteps: what the definition gives, the window's constants; in float32 to its precision."""
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    T = torch.linspace(0.37, 999.73, 1237, dtype=torch.float64)
    T = T[((T[:, None] - 1000 * chord.t).abs() > 0.1).all(dim=1) & ((T - T.round()).abs() > 2e-3)]
    w = (T[:, None] <= 1000 * chord.t[1:-1]).sum(dim=-1)
    c, s = chord.coefficients(T)
    place = chord.at(s / c)
    assert torch.allclose(place.c, c, rtol=1e-12)
    assert torch.allclose(place.T, T, rtol=0, atol=1e-9)
    assert torch.equal(chord.window(s / c), w)
    assert torch.allclose(place.dc_dt, (chord.c.diff() / chord.t.diff())[w])
    assert torch.allclose(place.ds_dt, (chord.s.diff() / chord.t.diff())[w])
    single = chord.to("cpu", torch.float32).at((s / c).float())
    assert torch.allclose(single.c.double(), c, rtol=3e-7)
    assert torch.allclose(single.T.double(), T, rtol=0, atol=5e-4)


def test_an_edge_belongs_to_the_window_it_starts(chord):
    T = torch.tensor([1000.0, 750.2, 750.05, 750.0, 749.0, 500.0, 250.0, 0.0], dtype=torch.float64)
    assert chord.window(chord.sigma(T)).tolist() == [0, 0, 1, 1, 1, 2, 3, 3]


def test_levels_off_the_path(chord):
    assert chord.timestep(torch.tensor([20.0, 0.01, 0.0], dtype=torch.float64)).tolist() == [1000, 0, 0]
    far = torch.tensor(30.0, dtype=torch.float64)
    assert (chord.signal(far) * far).item() == pytest.approx(chord.s[0].item())  # unit variance above the top
    assert chord.signal(torch.tensor(0.0, dtype=torch.float64)).item() == pytest.approx(chord.c[-1].item())


def test_wrong_tables_are_told(alphas_cumprod):
    with pytest.raises(ValueError, match=r"shape \(50,\), expected \(1000,\)"):
        WindowChord.from_alphas_cumprod(alphas_cumprod[:50], 4)
    for K in (0, 101):
        with pytest.raises(ValueError, match=f"{K} windows, expected 1 to 100"):
            WindowChord.from_alphas_cumprod(alphas_cumprod, K)


@pytest.mark.parametrize("K", [1, 3, 7, 64, 99, 100])
def test_every_number_of_windows_has_numbers(alphas_cumprod, K):
    """As many windows as are allowed: levels rise, timesteps come back within the tolerance of an edge, r is finite."""
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    T = torch.arange(1001, dtype=torch.float64)
    sigma = chord.sigma(T)
    assert (sigma.diff() > 0).all()
    assert (chord.timestep(sigma) - T).abs().max() < 0.1
    assert chord.signal(sigma).isfinite().all()
    assert chord.at(sigma).r.isfinite().all()
