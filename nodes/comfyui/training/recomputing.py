"""Parts of a UNet that keep their inputs only and compute again in backward (Chen et al. 2016)."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from torch import Tensor, nn


def blocks_recomputed(unet: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Gradient checkpointing: a UNet's residual and transformer blocks; the parts of a transformer's lists, which stock
    training finds too.
    """
    if isinstance(unet, UNetModel):
        return _recomputed([block for block in unet.modules() if isinstance(block, ResBlock | BasicTransformerBlock)])
    lists = [part for part in unet.children() if isinstance(part, nn.ModuleList)]
    return _recomputed([block for blocks in lists for block in blocks])


def layers_recomputed(unet: nn.Module) -> contextlib.AbstractContextManager[None]:
    """For weights that are not on the device: ComfyUI casts each into memory that the next one takes, so autograd
    cannot keep it, and backward asks for it again.
    """
    return _recomputed([layer for layer in unet.modules() if hasattr(layer, "comfy_cast_weights")], mutating=False)


@contextlib.contextmanager
def _recomputed(modules: list[nn.Module], mutating: bool = True) -> Iterator[None]:
    """mutating: whether they may write into their inputs."""
    before = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = _recomputing(module.forward, mutating)
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _recomputing(forward: Any, mutating: bool) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        tensors: list[Tensor] = []

        def noted(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        # Blocks write into the options (their number) and into tensors, and backward needs both as they are here.
        arguments = _with_tensors((args, kwargs), noted)
        if not any(tensor.requires_grad for tensor in tensors):
            return forward(*args, **kwargs)  # nothing to keep less of

        def block(*tensors: Tensor) -> Any:
            given = (tensor.clone() if mutating else tensor for tensor in tensors)
            args, kwargs = _with_tensors(arguments, lambda _: next(given))
            return forward(*args, **kwargs)

        return _Recomputed.apply(block, mutating, *tensors)  # type: ignore[no-untyped-call]

    return run


class _Recomputed(torch.autograd.Function):
    """A call of which only the inputs are kept.

    torch.utils.checkpoint does the same, but the gradients are wrong without a word where a block adds to its own input
    in place, as Flux' do.
    """

    @staticmethod
    def forward(ctx: Any, block: Any, mutating: bool, *tensors: Tensor) -> Any:
        ctx.block, ctx.mutating = block, mutating
        ctx.save_for_backward(*tensors)
        return block(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        inputs = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in ctx.saved_tensors]
        mutations = torch.autograd.graph.allow_mutation_on_saved_tensors if ctx.mutating else contextlib.nullcontext
        with torch.enable_grad(), mutations():
            found = ctx.block(*inputs)
            pairs = list(zip(found if isinstance(found, tuple) else (found,), gradients, strict=True))
            used = [(output, gradient) for output, gradient in pairs if gradient is not None and output.requires_grad]
            torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])
        return None, None, *(tensor.grad for tensor in inputs)


def _with_tensors(value: Any, replaced: Callable[[Tensor], Tensor]) -> Any:
    """The same with other tensors, in new containers: lists, tuples, dictionaries, and objects that hold tensors."""
    if isinstance(value, Tensor):
        return replaced(value)
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_with_tensors(part, replaced) for part in value)
    if type(value) is dict:
        return {key: _with_tensors(part, replaced) for key, part in value.items()}
    held = {name: part for name, part in _attributes(value).items() if isinstance(part, Tensor)}
    if held:
        value = copy.copy(value)
        for name, part in held.items():
            object.__setattr__(value, name, replaced(part))
    return value


def _attributes(value: Any) -> dict[str, Any]:
    """Of an object that is no module: dataclasses, and classes of a model's own such as LTX-2's compressed times."""
    if isinstance(value, type | nn.Module) or callable(value):
        return {}
    slots = {name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ())}
    return slots | getattr(value, "__dict__", {})
