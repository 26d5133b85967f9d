"""The Fréchet distance against known results and other formulas, and error bars against known distributions."""

import numpy as np
import pytest
import scipy.linalg
import torch

from small_model.quality.frechet import Gaussian, frechet, gaussian, jackknife


def covariance(d: int, seed: int) -> torch.Tensor:
    factor = torch.randn(d, d + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / d


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gaussians_with_the_same_axes():
    """|m_a - m_b|^2 + sum (sqrt a_i - sqrt b_i)^2, in any rotation of the axes."""
    a, b = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.0]).double()
    axes = torch.linalg.qr(normal(3, 3, seed=0)).Q
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    found = frechet(
        Gaussian(shift, axes @ a.diag() @ axes.T), Gaussian(torch.zeros(3).double(), axes @ b.diag() @ axes.T)
    )
    assert found == pytest.approx(float(shift.square().sum()) + 1 + 4 + 0.25, abs=1e-7)


@pytest.mark.parametrize("d", [2, 64])
def test_other_formulas(d):
    """Scipy's square root of a matrix, as FID's first code has it, and torchmetrics' eigenvalues of the product."""
    a, b = Gaussian(normal(d, seed=1), covariance(d, 2)), Gaussian(normal(d, seed=3), covariance(d, 4))
    rest = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace()
    by_root = rest - 2 * np.trace(scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy())).real
    by_values = rest - 2 * torch.linalg.eigvals(a.covariance @ b.covariance).sqrt().real.sum()
    assert frechet(a, b) == pytest.approx(float(by_root), rel=1e-9)
    assert frechet(a, b) == pytest.approx(float(by_values), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9 * d)


def test_few_pictures_give_a_distance_too():
    """Fewer pictures than features: the covariance is singular."""
    assert frechet(gaussian(normal(10, 64, seed=5)), gaussian(normal(500, 64, seed=6))) > 0


def test_moments():
    x = normal(1000, 3, seed=7)
    found = gaussian(x.float())
    assert torch.allclose(found.mean, x.mean(0), atol=1e-6)
    assert torch.allclose(found.covariance, torch.from_numpy(np.cov(x.numpy().T)), atol=1e-6)


def test_error_of_a_mean_is_the_standard_error():
    x = normal(300, seed=8)
    value, error = jackknife(lambda rows: float(x[rows].mean()), len(x), groups=len(x))
    assert value == pytest.approx(float(x.mean()))
    assert error == pytest.approx(float(x.std() / len(x) ** 0.5))


def test_error_of_a_distance_is_its_spread_over_many_samples():
    reference = Gaussian(torch.zeros(4).double(), torch.eye(4).double())
    samples = [1.3 * normal(400, 4, seed=seed) + 0.2 for seed in range(60)]
    found = [jackknife(lambda rows, x=x: frechet(gaussian(x[rows]), reference), len(x)) for x in samples]
    spread = np.std([value for value, _ in found], ddof=1)
    assert np.mean([error for _, error in found]) == pytest.approx(spread, rel=0.25)


def test_a_distance_of_few_pictures_has_no_bias():
    """Samples of the reference itself: their plain distance falls with 1 / n, the estimate is 0 within its error."""
    reference = Gaussian(torch.zeros(8).double(), torch.eye(8).double())
    samples = [normal(200, 8, seed=seed) for seed in range(40)]
    plain = np.mean([frechet(gaussian(x), reference) for x in samples])
    found = [jackknife(lambda rows, x=x: frechet(gaussian(x[rows]), reference), len(x), unbiased=True) for x in samples]
    error = np.std([value for value, _ in found], ddof=1) / len(found) ** 0.5
    assert abs(np.mean([value for value, _ in found])) < min(3 * error, plain / 10)
