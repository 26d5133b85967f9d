"""Stock samplers right without asking: a wrapper around sampling that lays the sampler's steps where they belong."""

import logging
from typing import Any, Protocol, runtime_checkable

import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

KEY = "perflow"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


@runtime_checkable
class LaysSteps(Protocol):
    """A model sampling that knows where steps belong: PeRFlow's on windows, InstaFlow's and its relatives' evenly."""

    def lay(self, sigmas: Tensor, from_noise: bool) -> Tensor:
        """As many steps, where they belong; the same object where they stand there already. Shape of `sigmas`."""

    def steps_text(self, sigmas: Tensor) -> str:
        """What a list that was laid is, in words and timesteps."""


def set_alignment(model: ModelPatcher, align_steps: bool) -> None:
    """Put the wrapper on a clone that is not yet in use, or take it off."""
    model.remove_wrappers_with_key(OUTER_SAMPLE, KEY)
    if align_steps:
        model.add_wrapper_with_key(OUTER_SAMPLE, KEY, align)


def align(
    executor: comfy.patcher_extension.WrapperExecutor,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """OUTER_SAMPLE wrapper. It keeps no state, and another model sampling set after ours turns it off.

    As many steps are taken as the list has: ddim_uniform at 6 steps has 7. Where the first one stands:
    - On an empty latent at pure noise, which is what it means. (ddim_uniform's 4 steps begin at timestep 752.)
    - On an image, and in KSamplerAdvanced from a later step, where the scheduler put it.
    KSamplerAdvanced up to an earlier step keeps the last level too, so that the second half goes on from there.
    """
    sampling = executor.class_obj.model_patcher.get_model_object("model_sampling")
    if isinstance(sampling, LaysSteps):
        laid = sampling.lay(sigmas, from_noise=not torch.count_nonzero(latent_image))
        if laid is not sigmas:
            logging.info(sampling.steps_text(laid))
        sigmas = laid
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
