"""The largest memory that a computation takes, found on the meta device: on tensors that have a size and no numbers.

PyTorch runs each operation there, forward and backward, and we add up the storages that are alive. So checkpointing, a
LoRA's frozen layers and gradients that add up are counted as they come; not counted is what kernels take inside.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

IN_16_BITS = (F.linear, F.conv2d, F.conv3d)  # of what the models here call, CUDA's autocast lowers these
IN_32_BITS = (F.group_norm, F.layer_norm)  # and raises these


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, `peak` is the most bytes that were alive at a time, without the tensors that were there before."""

    def __init__(self, there_before: Iterable[Tensor]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.known: dict[int, Any] = {tensor.untyped_storage()._cdata: tensor for tensor in there_before}
        self.alive = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return

        def gone(_: Any) -> None:
            self.alive -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, gone)
        self.alive += size
        self.peak = max(self.peak, self.alive)


class FusedAttention(torch.autograd.Function):
    """What flash attention keeps: its inputs and output, and a number for each row of the attention."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


class AsOnCuda(TorchFunctionMode):
    """Fused attention, and autocast to `dtype` with its copies of the weights; the meta device has neither."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.copies = dtype, dict[int, Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v = args[:3] or (kwargs[name] for name in ("query", "key", "value"))
            in_16 = (part if self.dtype == torch.float32 else self._cast(part, self.dtype) for part in (q, k, v))
            return FusedAttention.apply(*in_16)  # type: ignore[no-untyped-call]
        if self.dtype != torch.float32 and func in (*IN_16_BITS, *IN_32_BITS):
            wanted = self.dtype if func in IN_16_BITS else torch.float32
            args = tuple(self._cast(value, wanted) for value in args)
            kwargs = {name: self._cast(value, wanted) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(dtype)
        if id(value) not in self.copies:
            self.copies[id(value)] = value.to(dtype)
        return self.copies[id(value)]

    def __exit__(self, *error: Any) -> None:
        self.copies.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def checkpointing(self, block: Callable[..., Any], *args: Any) -> Any:
        """For diffusers' enable_gradient_checkpointing: the same where a block is computed again."""

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), AsOnCuda(self.dtype)

        return torch.utils.checkpoint.checkpoint(block, *args, use_reentrant=False, context_fn=contexts)


def of_step(model: Any, call: Callable[[], Tensor], dtype: torch.dtype, checkpointing: bool, adding_up: bool) -> int:
    """Bytes of activations, gradients and temporary copies in a forward and backward pass, beside the weights.

    model: a diffusers model on the meta device; call: its forward pass, there too; dtype: of the computation.
    adding_up: the gradients are there before, and others are added to them.
    """
    mode = AsOnCuda(dtype)
    if checkpointing:
        model.enable_gradient_checkpointing(mode.checkpointing)
    else:
        model.disable_gradient_checkpointing()
    model.train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.grad = torch.empty_like(weight) if adding_up else None
    there = [*model.parameters(), *model.buffers(), *(weight.grad for weight in trained if weight.grad is not None)]
    with LiveStorages(there) as found:
        with mode:
            output = call()
        torch.autograd.backward(output.float().square().mean())
    before = sum(weight.nbytes for weight in trained) if adding_up else 0
    model.zero_grad()
    return found.peak + before


def of_inference(model: torch.nn.Module, call: Callable[[], Any], dtype: torch.dtype) -> int:
    """Bytes that a call of a model on the meta device takes beside its weights, without gradients."""
    model.eval()
    with LiveStorages([*model.parameters(), *model.buffers()]) as found, torch.no_grad(), AsOnCuda(dtype):
        call()
    return found.peak
