"""LocalBlend inside ComfyUI, for any sampler: after every step the edits' latent is the source's outside the words.

ComfyUI's samplers are loops of their own, so the blend stands where such a loop meets the model.
"""

import copy
from collections.abc import Callable
from functools import wraps
from typing import Any

from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import KSAMPLER
from torch import Tensor

from .edit_plan import KEY, LocatedWords


def hand_over_blending(
    executor: WrapperExecutor, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any
) -> Tensor:
    """OUTER_SAMPLE wrapper: the same sampler, its loop blended. No other place sees the latent under a noise mask."""
    if isinstance(sampler, KSAMPLER):
        sampler = copy.copy(sampler)
        sampler.sampler_function = blended(sampler.sampler_function)
    return executor(noise, latent_image, sampler, *args, **kwargs)


def blended(loop: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loop of k-diffusion's signature that does the authors' step callback, x := x_source + mask (x - x_source)."""

    @wraps(loop)
    def run(model: Any, x: Tensor, sigmas: Tensor, *, extra_args: Any, callback: Any, **options: Any) -> Tensor:
        editing = extra_args["model_options"]["transformer_options"].get(KEY)
        located: LocatedWords | None = editing.located if editing is not None else None
        if located is None:
            return loop(model, x, sigmas, extra_args=extra_args, callback=callback, **options)

        def report(state: dict[str, Any]) -> None:
            callback(state | {"denoised": located.blend(state["denoised"])})

        blending = BlendingModel(model, located)
        return located.blend(loop(blending, x, sigmas, extra_args=extra_args, callback=report, **options))

    return run


class BlendingModel:
    """The model as a loop calls it, which blends the loop's latent first: in place, for from that the loop goes on.

    A step after which the latent is blended and one before which it is are the same, but for the last, which is
    blended when the loop has ended. What a loop remembers of earlier steps, slopes or x0, is the edit's own, as in the
    authors' code. Before the first call no word is located, so the caller's tensor is never written to.
    """

    def __init__(self, model: Any, located: LocatedWords):
        self.model = model
        self.located = located

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.located.maps is not None:
            x.copy_(self.located.blend(x))
        return self.model(x, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
