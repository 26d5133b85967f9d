"""What the UNet's output m means: ddim_eps, diff_eps or velocity. Sampling reads it, training writes it.

At the end a UNet as samplers and ODE solvers need it: its output read as data or as noise, guided by its prompt.
k-diffusion does the same in `external.py`, for the networks that it samples.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .chord import WindowChord

PredictionType = Literal["diff_eps", "ddim_eps", "velocity"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)
BasePrediction = Literal["noise", "v", "flow"]  # of the base model; "flow": the velocity of a flow model
BASE_PREDICTIONS: tuple[BasePrediction, ...] = get_args(BasePrediction)

# m of shape [B, ...], float32, for z [B, ...] and timesteps [B]; guided, a pair: without the prompt and with it.
UNet = Callable[[Tensor, Tensor], Sequence[Tensor]]
Derivative = Callable[[Tensor, Tensor], Tensor]  # d(X, i) = dX / dsigma of a base model, at level i [B] of its own


def usual_base(prediction_type: PredictionType) -> BasePrediction:
    """What the base of the published weights predicts: v for SD2.1's velocity, noise for SD1.5 and SDXL."""
    return "v" if prediction_type == "velocity" else "noise"


def like_base(predicts: BasePrediction) -> PredictionType:
    """The parameterization to train in, one where W = W_base is nearly right already.

    Where the base predicts noise, a straight trajectory has eps = m (ddim_eps). Where it predicts v = c eps - s x0, the
    nearest is velocity: m = dz/dt = c' x0 + s' eps. That of a flow model is its own: c' = 0, s' = 1.
    """
    return "ddim_eps" if predicts == "noise" else "velocity"


def append_dims(x: Tensor, like: Tensor) -> Tensor:
    """[B] (or a scalar) -> [B, 1, ...], to multiply `like`."""
    return x if x.ndim == like.ndim else x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def predicted_eps(prediction_type: PredictionType, chord: WindowChord, sigma: Tensor, m: Tensor, X: Tensor) -> Tensor:
    """eps of the chord from the UNet's output m at X = z / c; sigma of shape [B], m and X of shape [B, ...].

    ddim_eps: eps = m.    diff_eps: eps = r m, r one constant a window (`Place.r`).
    velocity: m = dz/dt = c' x0 + s' eps with x0 = X - sigma eps, hence eps = (m - c' X) / (s' - sigma c').
    """
    if prediction_type == "ddim_eps":
        return m
    at = chord.at(append_dims(sigma, m))
    if prediction_type == "diff_eps":
        return at.r * m
    return torch.addcmul(m, at.dc_dt, X, value=-1) / torch.addcmul(at.ds_dt, at.sigma, at.dc_dt, value=-1)


def output(prediction_type: PredictionType, chord: WindowChord, sigma: Tensor, eps: Tensor, X: Tensor) -> Tensor:
    """m of a perfect UNet on the chord X = x0 + sigma eps: the inverse of `predicted_eps`, shapes as there.

    ddim_eps: m = eps.    diff_eps: m = eps / r.    velocity: m = c' x0 + s' eps = c' X + (s' - sigma c') eps.
    """
    if prediction_type == "ddim_eps":
        return eps
    at = chord.at(append_dims(sigma, eps))
    if prediction_type == "diff_eps":
        return eps / at.r
    return at.dc_dt * X + (at.ds_dt - at.sigma * at.dc_dt) * eps


def denoised(prediction_type: PredictionType, chord: WindowChord, sigma: Tensor, m: Tensor, X: Tensor) -> Tensor:
    """x0 = X - sigma eps, the data that the chord through X points at; shapes as in `predicted_eps`."""
    sigma = append_dims(sigma, X)
    return X - sigma * predicted_eps(prediction_type, chord, sigma, m, X)


def denoiser(
    unet: UNet, prediction_type: PredictionType, chord: WindowChord, guidance: float = 1.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """denoise(X, sigma) = x0 of a PeRFlow UNet; X of shape [B, ...], sigma [B], on the device of the chord."""

    def denoise(X: Tensor, sigma: Tensor) -> Tensor:
        m = guided(unet(append_dims(chord.signal(sigma), X) * X, chord.timestep(sigma)), guidance)
        return denoised(prediction_type, chord, sigma, m, X)

    return denoise


def noise_predictor(unet: UNet, predicts: BasePrediction, alphas_cumprod: Tensor, guidance: float = 1.0) -> Derivative:
    """eps(X, i) of a base UNet at X = z / sqrt(ab[i]) for entries i of its table; X of shape [B, ...], i [B].

    A prediction v = sqrt(ab) eps - sqrt(1 - ab) x0 is converted: eps = sqrt(ab) v + sqrt(1 - ab) z.
    """

    def eps(X: Tensor, i: Tensor) -> Tensor:
        alpha_bar = append_dims(alphas_cumprod[i], X)
        z = X * alpha_bar.sqrt()
        m = guided(unet(z, i), guidance)
        return m if predicts == "noise" else alpha_bar.sqrt() * m + (1 - alpha_bar).sqrt() * z

    return eps


def velocity_predictor(network: UNet, T: Tensor, guidance: float = 1.0) -> Derivative:
    """v(X, i) of a flow model, which is given X at the timesteps T[i]; X of shape [B, ...], i [B]."""

    def v(X: Tensor, i: Tensor) -> Tensor:
        return guided(network(X, T[i]), guidance)

    return v


def guided(outputs: Sequence[Tensor], guidance: float) -> Tensor:
    """m = m_without + g (m_with - m_without): classifier-free guidance (Ho and Salimans 2022, Eq. 6, g = 1 + w)."""
    return torch.lerp(outputs[0], outputs[1], guidance) if len(outputs) == 2 else outputs[0]
