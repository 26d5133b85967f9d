"""Noise tables of diffusion models: 1000 rising levels sigma = sqrt((1 - ab) / ab), ab = cumprod(1 - beta)."""

import torch
from torch import Tensor

from ..host import host_float64
from . import tolerances
from .windows import NUM_TIMESTEPS

FIRST_BETA, LAST_BETA = 0.00085, 0.012  # Rombach et al. 2022; of both tables here


def stable_diffusion_sigmas() -> Tensor:
    """The table of SD1.5, SD2.x and SDXL: sqrt(beta) runs linearly; float64 [1000]. sigma_max is 14.615."""
    return _sigmas(torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, NUM_TIMESTEPS, dtype=torch.float64) ** 2)


def linear_beta_sigmas() -> Tensor:
    """The table of Rectified Diffusion's rd and cm: beta runs linearly; float64 [1000]. sigma_max is 25.146."""
    return _sigmas(torch.linspace(FIRST_BETA, LAST_BETA, NUM_TIMESTEPS, dtype=torch.float64))


def is_stable_diffusion(sigmas: Tensor) -> bool:
    """Whether a table [n] has Stable Diffusion's numbers; one with zero terminal SNR or other betas has not."""
    expected = stable_diffusion_sigmas()
    same_shape = sigmas.shape == expected.shape
    return same_shape and torch.allclose(host_float64(sigmas), expected, rtol=tolerances.SAME_TABLE, atol=0)


def _sigmas(betas: Tensor) -> Tensor:
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
