"""Stable Diffusion's noise table and the reference model, without ComfyUI."""

import pytest
import torch

from perflow_core.sampling.chord import WindowChord


@pytest.fixture(scope="session")
def alphas_cumprod() -> torch.Tensor:
    """betas = linspace(sqrt 0.00085, sqrt 0.012, 1000)^2, ab = cumprod(1 - betas); float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


@pytest.fixture(scope="session")
def chord(alphas_cumprod) -> WindowChord:
    return WindowChord.from_alphas_cumprod(alphas_cumprod, 4)


@pytest.fixture
def random():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return draw
