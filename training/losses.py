"""How far the student's answer is from the lesson."""

import torch
from torch import Tensor

from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.parameterization import PredictionType, predicted_eps
from perflow_core.sampling.windows import NUM_TIMESTEPS

from .config import LossWeight, OptimizerConfig


def row_losses(
    config: OptimizerConfig,
    prediction_type: PredictionType,
    chord: WindowChord,
    m: Tensor,
    target: Tensor,
    w: Tensor,
    T: Tensor,
) -> Tensor:
    """The loss of each row, [B]: MSE or Huber (sqrt(d^2 + c^2) - c), in float32, weighted."""
    d = m.float() - target.float()
    if config.loss == "huber":
        losses = ((d**2 + config.huber_c**2).sqrt() - config.huber_c).flatten(1).mean(1)
    else:
        losses = d.square().flatten(1).mean(1)
    return losses * weights(config.loss_weight, prediction_type, chord, w, T)


def weights(kind: LossWeight, prediction_type: PredictionType, chord: WindowChord, w: Tensor, T: Tensor) -> Tensor:
    """What each row's loss is multiplied by; [B].

    none: 1.    reciprocal, window: the PeRFlow script's 1 / max(1 - t, 0.1) / 2.3 of the row's t or its window's start.
    end_point: (dz_e / dm)^2 of the window's end z_e = c_e (X_s + (sigma_e - sigma_s) eps(m)), so that a squared error
    of m counts as the error of the latent that the next window starts from.
    """
    if kind == "none":
        return torch.ones_like(T)
    if kind == "end_point":
        sigma = chord.s / chord.c
        one, zero = torch.ones_like(T).to(sigma), T.new_zeros(())
        deps_dm = predicted_eps(prediction_type, chord, chord.sigma(T.to(sigma)), one, zero)
        return (chord.c[w + 1] * (sigma[w + 1] - sigma[w]) * deps_dm).square().to(T)
    t = T / NUM_TIMESTEPS if kind == "reciprocal" else chord.t[w].to(T)
    return 1 / (1 - t).clamp(min=0.1) / 2.3
