"""Losses: what a weight makes of an error."""

import pytest
import torch

from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.parameterization import PREDICTION_TYPES, append_dims, predicted_eps
from perflow_core.training.reflow import Line, lesson
from training.config import OptimizerConfig
from training.losses import row_losses


@pytest.fixture(scope="module")
def chord():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return WindowChord.from_alphas_cumprod((1 - betas).cumprod(0), 4)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_end_point_counts_the_error_of_the_latent_at_the_windows_end(chord, prediction_type):
    generator = torch.Generator().manual_seed(0)
    x0, noise, d = torch.randn(3, 8, 4, 6, 6, generator=generator, dtype=torch.float64)
    w = torch.arange(8) // 2
    T = torch.tensor([1000.0, 875, 750, 625, 500, 375, 250, 125], dtype=torch.float64)
    line = Line(w, x0, noise)
    shown = lesson(prediction_type, chord, line, T)

    def end(m):
        """z_e when every step of the window goes along the eps that m stands for."""
        sigma, edges = chord.sigma(T), chord.s / chord.c
        X = line.x0 + append_dims(edges[:-1][w], x0) * line.eps
        e = predicted_eps(prediction_type, chord, sigma, m, shown.z / append_dims(chord.signal(sigma), m))
        return append_dims(chord.c[1:][w], X) * (X + append_dims((edges[1:] - edges[:-1])[w], X) * e)

    config = OptimizerConfig(steps=1, batch_size=1, loss_weight="end_point")
    losses = row_losses(config, prediction_type, chord, shown.m + d, shown.m, w, T)
    wanted = (end(shown.m + d) - end(shown.m)).square().mean((1, 2, 3))
    torch.testing.assert_close(losses.double(), wanted, rtol=1e-5, atol=0)  # the loss squares in float32


@pytest.mark.parametrize(("kind", "weight"), [("none", 1.0), ("reciprocal", 2 / 2.3), ("window", 4 / 3 / 2.3)])
def test_the_other_weights(chord, kind, weight):
    config = OptimizerConfig(steps=1, batch_size=1, loss_weight=kind)
    T, w = torch.tensor([500.0]), torch.tensor([2 if kind == "reciprocal" else 3])
    losses = row_losses(config, "ddim_eps", chord, torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), w, T)
    assert losses.item() == pytest.approx(weight)
