"""Analytic truth: on the chord of a known x0 and eps every parameterization must find them."""

import pytest
import torch

from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.parameterization import (
    PREDICTION_TYPES,
    denoised,
    like_base,
    output,
    predicted_eps,
)

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
    assert (predicted_eps(prediction_type, chord, sigma, m, z / c) - noise).abs().max() < 1e-9
    assert (denoised(prediction_type, chord, sigma, m, z / c) - x0).abs().max() < 1e-9


def test_one_ratio_a_window(chord):
    m = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    sigma = chord.sigma(torch.tensor([875.0, 10.0], dtype=torch.float64))
    found = predicted_eps("diff_eps", chord, sigma, m, torch.zeros_like(m)).flatten()
    assert found.tolist() == pytest.approx([1.3323074, 1.0429995], rel=1e-7)


@pytest.mark.parametrize("predicts", ["noise", "v"])
def test_training_begins_nearest_to_the_base(chord, alphas_cumprod, predicts):
    """The loss of W = W_base as a share of the target's power, at the windows' starts: the least is `like_base`'s.

    x0 and eps are independent and of unit variance, the trajectory straight, and a base of v answers c eps - s x0.
    """
    T = torch.tensor([1000.0, 750.0, 500.0, 250.0], dtype=torch.float64)
    sigma, alpha_bar = chord.sigma(T), alphas_cumprod[T.long() - 1]
    on_x0, on_eps = (-(1 - alpha_bar).sqrt(), alpha_bar.sqrt()) if predicts == "v" else (torch.zeros(4), torch.ones(4))
    losses = {}
    for kind in PREDICTION_TYPES:  # m is linear in x0 and eps: its two factors, from X = x0 + sigma eps
        of_x0, of_eps = (
            output(kind, chord, sigma, noise, x0 + sigma * noise)
            for x0, noise in (
                (torch.ones(4).double(), torch.zeros(4).double()),
                (torch.zeros(4).double(), torch.ones(4)),
            )
        )
        power = of_x0**2 + of_eps**2
        losses[kind] = float((((of_x0 - on_x0) ** 2 + (of_eps - on_eps) ** 2) / power).mean())
    assert min(losses, key=losses.__getitem__) == like_base(predicts), losses
