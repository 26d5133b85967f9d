"""LocalBlend inside ComfyUI, for any sampler: after every step the edits' latent is the source's outside the words.

ComfyUI's samplers are loops of their own, so the blend stands where such a loop meets the model.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor
from comfy.samplers import KSAMPLER
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ....perflow_core.editing.local_blend import BlendedRows
from .edit_plan import KEY, LocatedWords

LISTENERS = "sampler_post_cfg_function"  # ComfyUI's name in model_options

Listener = Callable[[dict[str, Any]], Tensor]
Options = dict[str, Any]


def hand_over_blending(
    executor: WrapperExecutor, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any
) -> Tensor:
    """OUTER_SAMPLE wrapper: the same sampler with a blended loop. A noise mask acts behind it, in the model."""
    if isinstance(sampler, KSAMPLER):
        sampler = copy.copy(sampler)
        sampler.sampler_function = blended(sampler.sampler_function)
    return executor(noise, latent_image, sampler, *args, **kwargs)


def blended(loop: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loop of k-diffusion's signature in which the edits of its run, if it has any, are blended."""

    @wraps(loop)
    def run(model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback: Any, **options: Any) -> Tensor:
        editing = extra_args["model_options"].get("transformer_options", {}).get(KEY)
        if editing is None or editing.located is None:
            return loop(model, x, sigmas, extra_args=extra_args, callback=callback, **options)
        located: LocatedWords = editing.located
        rows = BlendedRows(x.shape, located.plan.rows, len(sigmas) - 1, x.device)

        def report(state: dict[str, Any]) -> None:
            callback(state | {name: rows.picture(state[name]) for name in ("x", "denoised")})

        start = rows.extended(x)
        noise = BatchNoise(rows, x.shape, start.shape)
        blending = BlendingModel(model, rows, located, noise, extra_args["model_options"].get(LISTENERS, []))
        with noise:
            return rows.picture(loop(blending, start, sigmas, extra_args=extra_args, callback=report, **options))

    return run


class BatchNoise(TorchFunctionMode):
    """While it is entered, noise for the loop's rows is what the loop would draw for the batch without spare rows.

    So a stochastic loop leaves the source as it is without LocalBlend, and a spare row gets the source's noise until it
    is in use. Loops draw by themselves, each in its own way, at last by `torch.randn` or `torch.randn_like`.
    """

    def __init__(self, rows: BlendedRows, batch: torch.Size, extended: torch.Size):
        """The shapes of the batch and of the loop's rows."""
        super().__init__()
        self._rows, self._batch, self._extended = rows, batch, extended

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn_like and args[0].shape == self._extended:
            return self._spread(func(args[0][: self._rows.count], *args[1:], **kwargs))
        if func is torch.randn and args and args[0] == self._extended:
            return self._spread(func(self._batch, *args[1:], **kwargs))
        return func(*args, **kwargs)

    def _spread(self, noise: Tensor) -> Tensor:
        return self._rows.spread(noise.to(self._rows.inside.device)).to(noise.device)

    @contextmanager
    def left(self) -> Iterator[None]:
        """For the model's calls, which are none of the loop's."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            self.__enter__()  # type: ignore[no-untyped-call]


class BlendingModel:
    """The model as a loop calls it, with spare rows; the model behind it gets the blended batch.

    A loop may listen to the unconditional x0 (`euler_cfg_pp`) and then gets the model's, in its own rows. Some loops
    look for an attribute to see what kind of model it is (RES4LYF: `model`), so this class shows none.
    """

    def __init__(
        self, model: Any, rows: BlendedRows, located: LocatedWords, noise: BatchNoise, listeners: list[Listener]
    ):
        """listeners: those that were there before the loop's own."""
        self._model, self._rows, self._located, self._noise = model, rows, located, noise
        self._listeners = listeners

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Options, **kwargs: Any) -> Tensor:
        if x.shape[2:] != self._rows.inside.shape[3:]:
            (height, width), (was_height, was_width) = x.shape[2:], self._rows.inside.shape[3:]
            raise ValueError(
                f"Prompt-to-Prompt cannot blend a latent of {height} x {width} that was {was_height} x {was_width} "
                "before, expected one size: take a sampler that does not change it, or leave blend empty."
            )
        reported: Options = {}

        def keep(state: Options) -> Tensor:
            reported.update(state)
            return state["denoised"]

        of_loop = [one for one in model_options.get(LISTENERS, []) if one not in self._listeners]
        options = model_options | {LISTENERS: [*self._listeners, keep]} if of_loop else model_options
        with self._noise.left():
            denoised = self._model(self._rows.picture(x), sigma[: self._rows.count], model_options=options, **kwargs)
        if (mask := self._located.mask()) is not None:
            self._rows.open(mask)
        spread = {name: self._rows.spread(value) for name, value in reported.items() if name.endswith("denoised")}
        for listener in of_loop:
            listener(reported | spread | {"input": x, "sigma": sigma})
        return self._rows.spread(denoised)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
