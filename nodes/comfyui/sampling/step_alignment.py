"""A wrapper around sampling that aligns the steps of any sampler, so that stock samplers are right by themselves."""

import logging
from functools import partial
from typing import Any, Protocol, runtime_checkable

import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....perflow_core.sampling import tolerances
from ....perflow_core.weights.delta_settings import CFG_OF_GUIDED
from .. import node_text
from .base_sampling import bases_of
from .euler_check import Callback, EulerCheck
from .flow_windows import flow_windows
from .piecewise_sampler import PiecewiseSampler

KEY = "perflow"
LEARNED_GUIDANCE = "perflow_guidance"  # the MODEL's note: the teacher's CFG that is in its weights, None without
LARGEST_CFG = 3.0  # of such a model, before it is said that this is much
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

    def window_starts(self, sigmas: Tensor) -> list[int]:
        """The falling steps, by number, that begin a window; none where the path does not bend."""


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
    denoise_mask: Tensor | None = None,
    callback: Callback | None = None,
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
    steps = steps_of(model)
    if steps is None:
        other = bases_of(model.get_model_object("model_sampling"))
        said = [
            f"{family}'s sampling is switched off, so the picture will be wrong: a node after this one has set another "
            f"({other}). Take that node away"
        ]
    else:
        given, from_noise = sigmas, not torch.count_nonzero(latent_image)
        sigmas = steps.align(given, from_noise) if align_steps else given
        said = remarks(steps, sampler, noise, sigmas, sigmas is not given) + guided_twice(model, executor.class_obj)
    show(model, family, said)
    if steps is None or isinstance(sampler, PiecewiseSampler):
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, *args, **kwargs)
    check = EulerCheck(sigmas, steps.window_starts(sigmas), callback)
    samples = executor(noise, latent_image, sampler, sigmas, denoise_mask, check, *args, **kwargs)
    if otherwise := check.text():
        show(model, family, [*said, otherwise])
    return samples


def show(model: ModelPatcher, family: str, said: list[str]) -> None:
    """In the log, and on the node that gave the MODEL."""
    text = ". ".join(said) or None
    if text:
        logging.info("%s: %s", family, text)
    node_text.add_steps(model, text)


def remarks(steps: AlignsSteps, sampler: Any, noise: Tensor, sigmas: Tensor, aligned: bool) -> list[str]:
    """What is to be said of the steps before they are taken."""
    part, said = is_part(steps, noise, sigmas), [steps.steps_text(sigmas)] if aligned else []
    rough = None if isinstance(sampler, PiecewiseSampler) else steps.rough_text(sigmas, part)
    if rough:
        said.append(rough)
    elif aligned and part:
        said.append(
            "This is one part of a path, and its steps may differ from those of a single run: use "
            f"{steps.for_parts} to get the same steps"
        )
    return said


def guided_twice(model: ModelPatcher, guider: Any) -> list[str]:
    """What is to be said of the guider's CFG; nothing where it has none, or where the weights have learned none."""
    learned, cfg = model.get_attachment(LEARNED_GUIDANCE), getattr(guider, "cfg", None)
    if learned is None or not isinstance(cfg, (int, float)) or cfg <= LARGEST_CFG:
        return []
    return [f"CFG {cfg:g} is much here: the delta has learned CFG {learned:g} already, so take 1 to {CFG_OF_GUIDED:g}"]


def is_part(sampling: AlignsSteps, noise: Tensor, sigmas: Tensor) -> bool:
    """Whether another run has the rest: it leaves noise in the latent, or begins below the top without adding any."""
    ends_above = float(sigmas[-1]) > float(sampling.sigma_min) * (1 + tolerances.SAME_LEVEL)
    begins_below = float(sigmas[0]) < float(sampling.sigma_max) * (1 - tolerances.SAME_LEVEL)
    return ends_above or (begins_below and not torch.count_nonzero(noise))
