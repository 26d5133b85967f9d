"""The model-sampling objects of the rectified families: ComfyUI's own, but for a sign and a table."""

from collections.abc import Callable

import comfy.model_sampling
import torch
from comfy.supported_models_base import BASE
from torch import Tensor

from ....perflow_core.errors import listed
from ....perflow_core.sampling.noise_tables import linear_beta_sigmas
from ....perflow_core.sampling.rectified import FlowPath, NoisePath, TablePath, align_evenly
from ....perflow_core.sampling.schedule import scaled_at_reference_end
from ....perflow_core.sampling.windows import NUM_TIMESTEPS, percent_timestep


class EvenSteps:
    """The path has no bend, so even steps are right from wherever a list begins; see `step_alignment.py`.

    Lists made by hand become even too: they look like a scheduler's (`align_steps` off keeps them).
    """

    family = "InstaFlow"
    for_parts = "the scheduler simple"
    path: NoisePath
    timestep: Callable[[Tensor], Tensor]

    def align(self, sigmas: Tensor, from_noise: bool) -> Tensor:
        return align_evenly(self.path, sigmas, from_noise)

    def steps_text(self, sigmas: Tensor) -> str:
        return f"steps spaced evenly: {listed(self.timestep(sigmas[:-1]).tolist())}"

    def rough_text(self, sigmas: Tensor, part: bool) -> str | None:
        return None

    def window_starts(self, sigmas: Tensor) -> list[int]:
        return []


class RectifiedFlowSampling(EvenSteps, comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """InstaFlow and 2-Rectified-Flow: ComfyUI's flow sampling, sigma = t, with v = data - noise.

    The UNet and a ControlNet get 1000 sigma, fractions included. Noise scaling is ComfyUI's.
    """

    path = FlowPath()

    def __init__(self, config: BASE | None = None):
        super().__init__(config)
        self.set_parameters(shift=1.0, multiplier=1000)

    def percent_to_sigma(self, percent: float) -> float:
        """ComfyUI's 1 - p is a step of n even ones at p = i / n, which two ranges that meet there would share."""
        if percent <= 0 or percent >= 1:
            return super().percent_to_sigma(percent)
        return torch.tensor(percent_timestep(percent) / NUM_TIMESTEPS).item()

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x0 = x + sigma v; ComfyUI's flow models predict -v."""
        return super().calculate_denoised(sigma, -model_output, model_input)


class RectifiedDiffusionSampling(EvenSteps, comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """Rectified Diffusion (rd.ckpt, cm.ckpt): noise prediction on the linear beta table, timesteps 0 to 999."""

    def __init__(self, config: BASE | None = None):
        super().__init__(config)
        sigmas = linear_beta_sigmas()
        self.set_sigmas(sigmas)
        self.path = TablePath(sigmas)

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """X as it is, but X / sqrt(1 + sigma^2) at the lowest level, the reference end: what the authors decode."""
        lowest = self.sigmas[0].to(latent.device)
        return scaled_at_reference_end(latent, sigma, lowest, (1 + lowest**2).rsqrt())
