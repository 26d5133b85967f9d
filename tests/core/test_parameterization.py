"""Analytic truth: on the chord of a known x0 and eps every parameterization must find them."""

import pytest
import torch

from perflow_core.chord import WindowChord
from perflow_core.parameterization import PREDICTION_TYPES, denoised, eps

T = torch.tensor([1000.0, 990.0, 875.0, 751.0, 750.0, 600.0, 500.0, 375.0, 250.0, 100.0, 1.0], dtype=torch.float64)


def on_the_chord(chord: WindowChord, T: torch.Tensor) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, len(T), 4, 2, 3, dtype=torch.float64, generator=generator)
    c, s = (value[:, None, None, None] for value in chord.coefficients(T))
    return x0, noise, c * x0 + s * noise, c


def perfect_output(prediction_type, chord, T, x0, noise):
    """What a perfect UNet of that kind would say, from the definitions in the paper and not from our algebra."""
    w = chord.window(chord.sigma(T))[:, None, None, None]
    c_s, c_e, s_s, s_e = chord.c[w], chord.c[w + 1], chord.s[w], chord.s[w + 1]
    if prediction_type == "ddim_eps":
        return noise
    if prediction_type == "velocity":  # (z_s - z_e) / (t_s - t_e)
        return ((c_s - c_e) * x0 + (s_s - s_e) * noise) / (chord.t[w] - chord.t[w + 1])
    gamma = c_s / c_e  # diff_eps: z_e = (z_s - sqrt(1 - gamma^2) m) / gamma at the window's start
    z_s, z_e = c_s * x0 + s_s * noise, c_e * x0 + s_e * noise
    return (z_s - gamma * z_e) / (1 - gamma**2).sqrt()


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("K", [1, 2, 4, 5])
def test_finds_the_data_and_the_noise(alphas_cumprod, prediction_type, K):
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    x0, noise, z, c = on_the_chord(chord, T)
    m = perfect_output(prediction_type, chord, T, x0, noise)
    sigma = chord.sigma(T)
    assert (eps(prediction_type, chord, sigma, m, z / c) - noise).abs().max() < 1e-9
    assert (denoised(prediction_type, chord, sigma, m, z / c) - x0).abs().max() < 1e-9


def test_one_ratio_a_window(chord):
    m = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    sigma = chord.sigma(torch.tensor([875.0, 10.0], dtype=torch.float64))
    found = eps("diff_eps", chord, sigma, m, torch.zeros_like(m)).flatten()
    assert found.tolist() == pytest.approx([1.3323074, 1.0429995], rel=1e-7)
