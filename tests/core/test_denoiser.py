"""A UNet's output as data and as noise, guided, against the formulas."""

import pytest
import torch

from perflow_core.sampling.parameterization import PREDICTION_TYPES, append_dims, denoiser, noise_predictor, output


@pytest.fixture
def straight():
    """x0 and eps, [4, 3, 2, 2]."""
    return torch.randn(2, 4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_perfect_student_gives_the_data(chord, straight, prediction_type):
    x0, eps = straight
    T = torch.tensor([1000.0, 700, 437, 125], dtype=torch.float64)
    sigma = chord.sigma(T)
    X = x0 + append_dims(sigma, x0) * eps
    asked = []

    def unet(z, T):
        asked.append((z, T))
        return [output(prediction_type, chord, sigma, eps, X)]

    assert (denoiser(unet, prediction_type, chord)(X, sigma) - x0).abs().max() < 1e-9
    ((z, told),) = asked
    assert torch.equal(told, T)
    c, s = (append_dims(part, X) for part in chord.coefficients(T))
    assert (z - (c * x0 + s * eps)).abs().max() < 1e-9


@pytest.mark.parametrize("predicts", ["noise", "v"])
def test_the_teachers_noise_with_guidance(alphas_cumprod, straight, predicts):
    x0, eps = straight
    i = torch.tensor([999, 749, 300, 0])
    alpha_bar = append_dims(alphas_cumprod[i], x0)
    z = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
    m = eps if predicts == "noise" else alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0

    def unet(latent, entries):
        assert torch.equal(entries, i)
        assert (latent - z).abs().max() < 1e-9
        return [m - 0.5, m]

    X = z / alpha_bar.sqrt()
    assert (noise_predictor(unet, predicts, alphas_cumprod, 1.0)(X, i) - eps).abs().max() < 1e-9
    off = noise_predictor(unet, predicts, alphas_cumprod, 3.0)(X, i) - eps
    assert (off - (1.0 if predicts == "noise" else alpha_bar.sqrt())).abs().max() < 1e-9
    alone = noise_predictor(lambda z, i: [m], predicts, alphas_cumprod, 3.0)(X, i)
    assert (alone - eps).abs().max() < 1e-9
