"""A wrapper around sampling that aligns the steps of any sampler, so that stock samplers are right by themselves."""

import logging
from functools import partial
from typing import Any, Protocol, runtime_checkable

import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....perflow_core.sampling import tolerances
from .. import node_text
from .base_sampling import bases_of
from .flow_windows import flow_windows
from .piecewise_sampler import PiecewiseSampler

KEY = "perflow"
OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


@runtime_checkable
class AlignsSteps(Protocol):
    """What moves steps: PeRFlow's to windows, InstaFlow's and its relatives' to even spacing. It is the model sampling
    itself, or beside a flow model's own.
    """

    family: str
    sigma_min: Tensor
    sigma_max: Tensor

    @property
    def for_parts(self) -> str:
        """What gives the parts of one path the steps of the whole."""

    def align(self, sigmas: Tensor, from_noise: bool) -> Tensor:
        """As many steps, at the places they belong to; the same object where nothing moves. Shape of `sigmas`."""

    def steps_text(self, sigmas: Tensor) -> str:
        """A text with the timesteps of an aligned list."""

    def rough_text(self, sigmas: Tensor, part: bool) -> str | None:
        """What is rough about the steps of a list, and what helps; part: `is_part`. None where nothing is."""


def steps_of(model: ModelPatcher) -> AlignsSteps | None:
    """What moves the steps of a MODEL; None where nothing does."""
    sampling = model.get_model_object("model_sampling")
    return sampling if isinstance(sampling, AlignsSteps) else flow_windows(model)


def set_alignment(model: ModelPatcher, align_steps: bool) -> None:
    """Put the wrapper on a clone that has something which moves steps."""
    model.remove_wrappers_with_key(OUTER_SAMPLE, KEY)
    steps = steps_of(model)
    assert steps is not None, "set the sampling or the windows first"
    family = steps.family
    model.add_wrapper_with_key(OUTER_SAMPLE, KEY, partial(sample_aligned, family=family, align_steps=align_steps))


def sample_aligned(
    executor: comfy.patcher_extension.WrapperExecutor,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    *args: Any,
    family: str,
    align_steps: bool,
    **kwargs: Any,
) -> Tensor:
    """OUTER_SAMPLE wrapper. It keeps no state, and reports where a node after ours set another model sampling.

    As many steps are taken as the list has: ddim_uniform at 6 steps has 7. Where the first one stands:
    - On an empty latent at pure noise, which is what it means. (ddim_uniform's 4 steps begin near timestep 750.)
    - On an image, and in KSamplerAdvanced from a later step, where the scheduler put it.
    KSamplerAdvanced up to an earlier step keeps the last level too, so that the second half continues from there. Each
    half shares its steps by itself, since it gets no sigmas of the other.
    """
    model = executor.class_obj.model_patcher
    sampling = steps_of(model)
    if sampling is not None:
        given, from_noise = sigmas, not torch.count_nonzero(latent_image)
        sigmas = sampling.align(given, from_noise) if align_steps else given
        part, aligned = is_part(sampling, noise, sigmas), sigmas is not given
        remarks = [sampling.steps_text(sigmas)] if aligned else []
        rough = None if isinstance(sampler, PiecewiseSampler) else sampling.rough_text(sigmas, part)
        if rough:
            remarks.append(rough)
        elif aligned and part:
            remarks.append(
                "This is one part of a path, and its steps may differ from those of a single run: use "
                f"{sampling.for_parts} to get the same steps"
            )
        text = ". ".join(remarks) or None
    else:
        text = (
            f"{family}'s sampling is switched off, so the picture will be wrong: a node after this one has set another "
            f"({bases_of(model.get_model_object('model_sampling'))}). Take that node away"
        )
    if text:
        logging.info("%s: %s", family, text)
    node_text.add_steps(model, text)
    return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def is_part(sampling: AlignsSteps, noise: Tensor, sigmas: Tensor) -> bool:
    """Whether another run has the rest: it leaves noise in the latent, or begins below the top without adding any."""
    ends_above = float(sigmas[-1]) > float(sampling.sigma_min) * (1 + tolerances.SAME_LEVEL)
    begins_below = float(sigmas[0]) < float(sampling.sigma_max) * (1 - tolerances.SAME_LEVEL)
    return ends_above or (begins_below and not torch.count_nonzero(noise))
