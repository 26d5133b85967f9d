"""Stock samplers right without asking: a wrapper around sampling that lays the sampler's steps on the window grid."""

import logging
from typing import Any

import comfy.patcher_extension
from torch import Tensor

from ..perflow_core.alignment import align, path_timesteps
from ..perflow_core.windows import by_window
from .sampling_object import PeRFlowSampling

KEY = "perflow"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


def align_steps(
    executor: comfy.patcher_extension.WrapperExecutor,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """OUTER_SAMPLE wrapper. It keeps no state, and another model sampling set after ours turns it off."""
    sampling = executor.class_obj.model_patcher.get_model_object("model_sampling")
    if isinstance(sampling, PeRFlowSampling):
        aligned = align(sampling.chord, sigmas)
        if aligned is not sigmas:
            T = path_timesteps(sampling.chord, aligned[:-1])
            logging.info("PeRFlow: steps aligned to the windows: %s", by_window(T, sampling.chord.K))
        sigmas = aligned
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
