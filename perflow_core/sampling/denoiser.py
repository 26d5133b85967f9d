"""A UNet as samplers and ODE solvers need it: its output m read as data or as noise, guided by its prompt.

k-diffusion does the same in `external.py`, for the networks that it samples.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .chord import WindowChord
from .parameterization import BasePrediction, PredictionType, append_dims, denoised

# m of shape [B, ...], float32, for z [B, ...] and timesteps [B]; guided, a pair: without the prompt and with it.
UNet = Callable[[Tensor, Tensor], Sequence[Tensor]]
NoisePredictor = Callable[[Tensor, Tensor], Tensor]


def denoiser(
    unet: UNet, prediction_type: PredictionType, chord: WindowChord, guidance: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """denoise(X, sigma) = x0 of a PeRFlow UNet; X of shape [B, ...], sigma [B], on the device of the chord."""

    def denoise(X: Tensor, sigma: Tensor) -> Tensor:
        m = guided(unet(append_dims(chord.signal(sigma), X) * X, chord.timestep(sigma)), guidance)
        return denoised(prediction_type, chord, sigma, m, X)

    return denoise


def noise_predictor(
    unet: UNet, predicts: BasePrediction, alphas_cumprod: Tensor, guidance: float = 1.0
) -> NoisePredictor:
    """eps(X, i) of a base UNet at X = z / sqrt(ab[i]) for entries i of its table; X of shape [B, ...], i [B].

    A prediction v = sqrt(ab) eps - sqrt(1 - ab) x0 is converted: eps = sqrt(ab) v + sqrt(1 - ab) z.
    """

    def eps(X: Tensor, i: Tensor) -> Tensor:
        alpha_bar = append_dims(alphas_cumprod[i], X)
        z = X * alpha_bar.sqrt()
        m = guided(unet(z, i), guidance)
        return m if predicts == "noise" else alpha_bar.sqrt() * m + (1 - alpha_bar).sqrt() * z

    return eps


def guided(outputs: Sequence[Tensor], guidance: float) -> Tensor:
    """m = m_without + g (m_with - m_without): classifier-free guidance (Ho and Salimans 2022, Eq. 6, g = 1 + w)."""
    return torch.lerp(outputs[0], outputs[1], guidance) if len(outputs) == 2 else outputs[0]
