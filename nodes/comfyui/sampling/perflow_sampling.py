"""PeRFlow's model sampling: an ordinary epsilon model to ComfyUI, with the window chord as its noise schedule."""

import comfy.model_sampling
import numpy as np
import torch
from comfy.supported_models_base import BASE
from torch import Tensor

from ....perflow_core.sampling import tolerances
from ....perflow_core.sampling.alignment import align_to_windows
from ....perflow_core.sampling.chord import WindowChord
from ....perflow_core.sampling.parameterization import PredictionType, append_dims, denoised
from ....perflow_core.sampling.schedule import scaled_at_reference_end
from ....perflow_core.sampling.windows import NUM_TIMESTEPS, Float64, percent_timestep
from ....perflow_core.training.base import Base

EACH_MODEL = "Window Schedule for each of the two models"


class WindowSteps:
    """The steps of a MODEL whose path has windows: how they are laid and what is said about them."""

    family = "PeRFlow"
    chord: WindowChord

    @property
    def for_parts(self) -> str:
        """What gives the parts of a path the steps of the whole."""
        return EACH_MODEL if self.chord.windows.is_part else "Window Schedule with SplitSigmas"

    def align(self, sigmas: Tensor, from_noise: bool) -> Tensor:
        return align_to_windows(self.chord, sigmas, from_noise)

    def steps_text(self, sigmas: Tensor) -> str:
        T = self.chord.path_timesteps(sigmas[:-1])
        return f"steps aligned to the windows: {self.chord.by_window(T)}"

    def rough_text(self, sigmas: Tensor, part: bool) -> str | None:
        T, own = self.chord.path_timesteps(sigmas), self.chord.windows
        across, steps = own.steps_across(T), len(T) - 1
        if own.is_part:
            return self._outside_text(T)
        if not across:
            return None
        windows = len(own.spanned(T[0] / NUM_TIMESTEPS, T[-1] / NUM_TIMESTEPS)) - 1
        crosses = "crosses" if across == 1 else "cross"
        found = f"{across} of {steps} steps {crosses} a window edge, so the picture is rougher"
        if (T[1:] > T[:-1]).any():  # one that ends at the top looks like a part
            return f"{found}. A list that rises keeps its steps"
        if part:
            advice = f"use the scheduler simple and a multiple of {own.K} steps"
            return f"{found}. If the sampler takes the path in parts, {advice}"
        return f"Take {windows} steps or more: {found}" if steps < windows else found

    def window_starts(self, sigmas: Tensor) -> list[int]:
        T = self.chord.path_timesteps(sigmas)
        first = np.diff(self.chord.windows.window_of(T[:-1]), prepend=-1) != 0
        return np.flatnonzero(first & (np.diff(T) < 0)).tolist()

    def _outside_text(self, T: Float64) -> str | None:
        """For a model that has a part of the path: what it is called with where it was not trained."""
        start, end = (NUM_TIMESTEPS * t for t in self.chord.windows.span)
        outside = int(((T[:-1] > start + tolerances.EDGE) | (T[1:] < end - tolerances.EDGE)).sum())
        if not outside:
            return None
        edges, steps = self.chord.own_edges, len(T) - 1
        return (
            f"{outside} of {steps} steps leave this model's part of the path (sigma {edges[0]:.4g} to "
            f"{edges[-1]:.4g}), so the picture is rougher: use {EACH_MODEL}"
        )


class PeRFlowSampling(WindowSteps, comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Discrete epsilon sampling on the chord of K windows.

    As in ComfyUI's discrete models, sigmas[i] is sigma(i) and timestep(sigmas[i]) is i; here i is the timestep itself,
    so that the table has 1001 entries, 0 to 1000. What is not overridden (noise scaling, sigma_max) is ComfyUI's own.
    """

    def __init__(self, config: BASE, base: Base, prediction_type: PredictionType, windows: int):
        super().__init__(config)
        self.base, self.prediction_type = base, prediction_type
        self.chord = base.chord(windows)
        self.set_sigmas(self.chord.sigma(torch.arange(NUM_TIMESTEPS + 1, dtype=torch.float64)))
        self._chords: dict[torch.device, WindowChord] = {}

    def chord_on(self, device: torch.device) -> WindowChord:
        """The chord in float32 on a device, moved there once: a copy at every step would make a GPU wait."""
        if device not in self._chords:
            self._chords[device] = self.chord.to(device, torch.float32)
        return self._chords[device]

    @property
    def sigma_min(self) -> Tensor:
        """The last level that a step may start from, timestep 1; entry 0 is the end of the path."""
        return self.sigmas[1]

    def timestep(self, sigma: Tensor) -> Tensor:
        """What the UNet and a ControlNet get: 1000 t, not below the 1 that the weights were trained down to."""
        return self.chord_on(sigma.device).timestep(sigma.float()).clamp(min=1)

    def sigma(self, timestep: Tensor) -> Tensor:
        return self.chord_on(timestep.device).sigma(timestep.float())

    def percent_to_sigma(self, percent: float) -> float:
        if percent <= 0 or percent >= 1:
            return super().percent_to_sigma(percent)
        T = torch.tensor(percent_timestep(percent), dtype=torch.float64)
        return self.chord.sigma(T).float().item()  # the precision of the levels that it is compared with

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """z = c X."""
        return append_dims(self.chord_on(noise.device).signal(sigma), noise) * noise

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x0 = X - sigma eps."""
        chord = self.chord_on(model_output.device)
        return denoised(self.prediction_type, chord, sigma, model_output, model_input)

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """X as it is, but c(0) X at sigma(0), the reference end: what the official pipeline decodes."""
        chord = self.chord_on(latent.device)
        return scaled_at_reference_end(latent, sigma, chord.ends[0], chord.c[-1])
