"""Stock samplers right without asking, for the rectified families: even steps, whatever the scheduler says."""

import logging
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ..perflow_core.rectified import lay_evenly
from .instaflow_objects import RectifiedDiffusionSampling, RectifiedFlowSampling

KEY = "instaflow"


def even_steps(
    executor: comfy.patcher_extension.WrapperExecutor,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """OUTER_SAMPLE wrapper. It keeps no state, and another model sampling set after ours turns it off.

    Every falling list becomes even between its first and last sigma: the path has no bend, so no list has a reason to
    be otherwise, and lists laid out by hand cannot be told from a scheduler's (`align_steps` off keeps them). Where
    the first sigma stands:
    - simple, sgm_uniform, normal, karras, exponential, beta, linear_quadratic, kl_optimal: on pure noise.
    - ddim_uniform: at 0.752 for 4 steps, 0.002 for 1; kl_optimal of 1 step: no number. An empty latent means pure
      noise, so there and in the second case the list starts at it. On an image ddim_uniform's start stays.
    - denoise below 1, KSamplerAdvanced from a later step: where the scheduler put it, and the rest is even below. With
      simple that is denoise itself, but for rounding.
    - KSamplerAdvanced up to an earlier step: the last sigma stays too, so the second half goes on from there.
    Rising lists (from image to noise) and those that go back and forth are left alone. As many steps are taken as the
    list has: ddim_uniform at 6 steps has 7.
    """
    sampling = executor.class_obj.model_patcher.get_model_object("model_sampling")
    if isinstance(sampling, RectifiedFlowSampling | RectifiedDiffusionSampling):
        laid = lay_evenly(sampling.path, sigmas, from_noise=not torch.count_nonzero(latent_image))
        if laid is not sigmas:
            told = " ".join(f"{T:.6g}" for T in sampling.timestep(laid[:-1]).tolist())
            logging.info("InstaFlow: steps laid evenly: %s", told)
        sigmas = laid
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
