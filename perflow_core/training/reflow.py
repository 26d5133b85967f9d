"""How PeRFlow is trained (Yan et al., NeurIPS 2024): the teacher goes through a window, the student learns its chord.

Data and noise make X_s at the start of a window (`window_start`), the teacher's ODE takes X_s to X_e at its end
(`trajectory`), and the student learns the straight segment between the two (`segment_through`): at a timestep of the
window its input is z on the segment and its target is m (`training_target`). `Reflow` does all of it; `curriculum` says
what comes when, `descent` takes the optimizer's step.

Latents are in sigma space, X = z / c, as in `sampling.chord`; rows of a batch may be in different windows.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..sampling.chord import WindowChord
from ..sampling.parameterization import Derivative, PredictionType, append_dims, output, predicted_eps
from ..sampling.windows import NUM_TIMESTEPS
from .descent import Descent, WindowLosses
from .time_points import TimePoints
from .trajectory import TeacherTrajectory

LossWeight = Literal["none", "reciprocal", "window", "end_point"]


class Segment(NamedTuple):
    """The straight segment of a window, X(sigma) = x0 + sigma eps, for each row; what the student is to learn.

    w: [B], int64; x0 and eps: [B, ...]. Both are of unit size, so a segment keeps its precision in 16 bits.
    """

    w: Tensor
    x0: Tensor
    eps: Tensor


class Target(NamedTuple):
    """The student's input, latent z [B, ...] at timestep T [B], and its target, the output m [B, ...]."""

    z: Tensor
    T: Tensor
    m: Tensor


class Batch(NamedTuple):
    """Rows for one call of the student, m = student(z, T), at timesteps T [B] of their segments' windows."""

    segment: Segment
    T: Tensor
    student: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """MSE, or pseudo-Huber sqrt(d^2 + c^2) - c, of each row; and what it is multiplied by, see `loss_weights`."""

    kind: Literal["mse", "huber"] = "mse"
    huber_c: float = 0.001
    weight: LossWeight = "none"


@dataclass(frozen=True)
class Reflow:
    """The method with its settings. pure_noise: see `window_start`."""

    prediction_type: PredictionType
    chord: WindowChord
    points: TimePoints
    trajectory: TeacherTrajectory
    loss: Loss = Loss()
    pure_noise: bool = False

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Reflow":
        """The same with the tables of chord and trajectory on another device, in another dtype."""
        return replace(self, chord=self.chord.to(device, dtype), trajectory=self.trajectory.to(device, dtype))

    def segment(self, teacher: Derivative, w: Tensor, x0: Tensor, noise: Tensor) -> Segment:
        """The segment that belongs to data and noise, [B, ...], in windows w [B]; without a gradient."""
        with torch.no_grad():
            X_s = window_start(self.chord, w, self.trajectory.start(w, x0), noise, self.pure_noise)
            return segment_through(self.chord, w, X_s, self.trajectory(teacher, X_s, w))

    def losses(self, batch: Batch) -> Tensor:
        """The loss of each row, [B]; squared in float32."""
        target = training_target(self.prediction_type, self.chord, batch.segment, batch.T)
        d = batch.student(target.z, target.T).float() - target.m.float()
        if self.loss.kind == "huber":
            losses = ((d**2 + self.loss.huber_c**2).sqrt() - self.loss.huber_c).flatten(1).mean(1)
        else:
            losses = d.square().flatten(1).mean(1)
        return losses * loss_weights(self.loss.weight, self.prediction_type, self.chord, batch.segment.w, target.T)

    def step(self, batches: Iterable[Batch], descent: Descent) -> WindowLosses:
        """One step of the optimizer, on a batch or on several whose gradients add up. Raises NotFiniteError."""
        seen = self.chord.t.new_zeros(2, self.chord.K)
        for batch in batches:
            with descent.accumulating():
                losses = self.losses(batch)
                descent.backward(losses.mean())
                rows = torch.stack([losses.detach(), torch.ones_like(losses)])
                seen.index_add_(1, batch.segment.w, rows)
                if descent.is_last:
                    found = descent.checked(seen)
                descent.update()
        return found

    def metadata(self) -> dict[str, str]:
        """The method's settings for a delta's metadata."""
        return {
            "prediction_type": self.prediction_type,
            "windows": str(len(self.chord.windows.own)),
            "loss_weight": self.loss.weight,
            "pure_noise": str(self.pure_noise).lower(),
        }


def window_start(chord: WindowChord, w: Tensor, x0: Tensor, noise: Tensor, pure_noise: bool = False) -> Tensor:
    """X_s = x0 + sigma_s noise, that is z_s = c_s x0 + s_s noise; w of shape [B], x0 and noise of shape [B, ...].

    Of a flow model x0 is the data's part, (1 - sigma_s) x0 (`TeacherTrajectory.start`), and noise has its scale.
    With pure_noise the first window starts at z_s = noise, as text to image does: X_s = noise sqrt(1 + sigma_s^2).
    """
    sigma_s = append_dims((chord.s[:-1] / chord.c[:-1])[w], x0)
    X_s = x0 + sigma_s * noise
    if pure_noise:
        X_s = torch.where(append_dims(w == 0, x0), noise * (1 + sigma_s**2).sqrt(), X_s)
    return X_s


def segment_through(chord: WindowChord, w: Tensor, X_s: Tensor, X_e: Tensor) -> Segment:
    """eps = (X_e - X_s) / (sigma_e - sigma_s), x0 = X_s - sigma_s eps; shapes as in `Segment`."""
    sigma = chord.s / chord.c
    sigma_s, sigma_e = (append_dims(edge[w], X_s) for edge in (sigma[:-1], sigma[1:]))
    eps = (X_e - X_s) / (sigma_e - sigma_s)
    return Segment(w, X_s - sigma_s * eps, eps)


def training_target(prediction_type: PredictionType, chord: WindowChord, segment: Segment, T: Tensor) -> Target:
    """z = c(T) x0 + s(T) eps and the m of a perfect student at it; T of shape [B] in each row's window."""
    T = T.to(chord.t)
    c, s = chord.coefficients(T)
    X = segment.x0 + append_dims(s / c, segment.x0) * segment.eps
    m = output(prediction_type, chord, s / c, segment.eps, X)
    return Target(append_dims(c, X) * X, T, m)


def loss_weights(kind: LossWeight, prediction_type: PredictionType, chord: WindowChord, w: Tensor, T: Tensor) -> Tensor:
    """What each row's loss is multiplied by; [B].

    none: 1.    The PeRFlow scripts' two, with t of the row and t_s of its window's start:
    reciprocal: 1 / max(1 - t, 0.1) / 2.3.    window ("rcp_win" there): t_s / ((1 + K) / 2K), 1 on average over windows.
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
    if kind == "window":
        return chord.t[w].to(T) * (2 * chord.K / (1 + chord.K))
    return 1 / (1 - T / NUM_TIMESTEPS).clamp(min=0.1) / 2.3
