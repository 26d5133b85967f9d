"""Low-rank adapters on a UNet's layers: what the student has beside its teacher."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ....perflow_core.weights.lora_file import DOWN, UP, lora_pair, whole_name
from ..weights.unet_weights import layers

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
Layer = Any  # nn.Linear, a convolution, or a quantised one of a class of its own


class Adapter:
    """dW = up down for one linear layer or convolution, added to the layer's output; float32.

    up: [out, r]; down: [r, in, ...] as the layer's weight in computing. A fresh one changes nothing: up is zero.
    """

    def __init__(self, layer: Layer, rank: int, random: torch.Generator, device: torch.device):
        out, *inner = layer.weight.shape
        rank = min(rank, out, torch.Size(inner).numel())
        down = nn.init.kaiming_uniform_(torch.empty(rank, *inner), a=5**0.5, generator=random)
        self.layer = layer
        self.up = nn.Parameter(torch.zeros(out, rank, device=device))
        self.down = nn.Parameter(down.to(device))

    def added(self, x: Tensor) -> Tensor:
        """up down x in the precision of x, shaped as the layer's output."""
        up, down = self.up.to(x.dtype), self.down.to(x.dtype)
        if down.ndim == 2:
            return functional.linear(functional.linear(x, down), up)
        layer, convolution = self.layer, CONVOLUTIONS[down.ndim]
        if layer.groups > 1:  # each output reads its own inputs, and there are fewer of those than `down` could read
            dW = (up @ down.flatten(1)).reshape(-1, *down.shape[1:])
            return convolution(x, dW, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        hidden = convolution(x, down, None, layer.stride, layer.padding, layer.dilation)
        return convolution(hidden, up.reshape(*up.shape, *(1,) * (down.ndim - 2)))


class Adapters:
    """An adapter for every linear layer and convolution of a MODEL's UNet, by the layers' names; `on` or off.

    `whole` has what the student has beside them, by the weights' names: differences of norms and biases, which are not
    trained.
    """

    def __init__(self, model: ModelPatcher, rank: int, seed: int):
        random, device = torch.Generator().manual_seed(seed), model.load_device
        self.on = False
        self.whole: dict[str, Tensor] = {}
        self.by_name = {name: Adapter(layer, rank, random, device) for name, layer in layers(model)}

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [half for adapter in self.by_name.values() for half in (adapter.up, adapter.down)]

    def hook(self) -> list[RemovableHandle]:
        """Put them on their layers, until the handles are removed."""
        return [adapter.layer.register_forward_hook(self._adding(adapter)) for adapter in self.by_name.values()]

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """As ComfyUI's LoRA files have them."""
        found: dict[str, Tensor] = {}
        for name, adapter in self.by_name.items():
            found |= lora_pair(name, adapter.up.detach().to(dtype), adapter.down.detach().to(dtype))
        return found | {whole_name(key): dW.to("cpu", dtype).contiguous() for key, dW in self.whole.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave. Raises KeyError or RuntimeError for those of another model or rank."""
        with torch.no_grad():
            for name, adapter in self.by_name.items():
                adapter.up.copy_(tensors[name + UP].reshape(adapter.up.shape))
                adapter.down.copy_(tensors[name + DOWN].reshape(adapter.down.shape))

    def begin_with(self, name: str, up: Tensor, down: Tensor) -> None:
        """Directions that a layer's adapter has before training, at most as many as its rank; the others stay fresh."""
        adapter, r = self.by_name[name], up.shape[1]
        with torch.no_grad():
            adapter.up[:, :r] = up
            adapter.down[:r] = down

    def _adding(self, adapter: Adapter) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def add(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return output + adapter.added(args[0]) if self.on else None

        return add
