"""A device without float64, as Apple's: values lie on the CPU, and every operation that would need float64 there fails.

PyTorch converts while it moves to another device on the device that a tensor comes from, so a move into float64 fails
too. Random numbers from its global generator are refused: they would change what others draw next.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # the one that PyTorch moves to without a driver; here its tensors have values
RANDOM = ("rand", "randn", "rand_like", "randn_like", "normal_", "uniform_", "random_", "bernoulli")
FACTORISATIONS = ("linalg_qr", "_linalg_svd", "linalg_svd", "geqrf")  # what Apple's device lacks


class Elsewhere(Tensor):
    """A tensor on DEVICE."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        strides, offset = held.stride(), held.storage_offset()
        wrapper = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=strides, storage_offset=offset, dtype=held.dtype, device=DEVICE
        )
        wrapper.held = held
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """PyTorch has none for classes such as this one."""
        return self.held.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held!r})"


class WithoutFloat64(TorchDispatchMode):
    """While it is on, tensors can be made on DEVICE and moved there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


@contextmanager
def without_float64() -> Iterator[None]:
    with WithoutFloat64():
        yield


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """On the CPU, with the result where the real operation would leave it."""
    name = func.overloadpacket.__name__
    flat, _ = tree_flatten((args, kwargs))
    there = any(isinstance(value, Elsewhere) for value in flat)
    to_device = kwargs.get("device")
    stays = DEVICE if there else torch.device("cpu")
    result_on = stays if to_device is None else torch.device(to_device)
    if there and kwargs.get("dtype") is torch.float64:
        raise TypeError("this device has no float64.")
    if result_on == DEVICE and name in RANDOM and kwargs.get("generator") is None:
        raise AssertionError(f"{name} draws from the device's global generator")
    if there and name in FACTORISATIONS:
        raise NotImplementedError(f"{name} is not implemented for this device.")
    plain = tree_map(lambda value: value.held if isinstance(value, Elsewhere) else value, (args, kwargs))
    if to_device is not None:
        plain[1]["device"] = torch.device("cpu")
    found = func(*plain[0], **plain[1])
    if result_on != DEVICE or name in ("_local_scalar_dense", "equal"):
        return found
    return tree_map(wrapped, found)


def wrapped(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.dtype in (torch.float64, torch.complex128):
        raise TypeError("this device has no float64.")
    return Elsewhere(value)
