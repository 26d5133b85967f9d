"""Low-rank adapters on a UNet's layers: what the student has beside its teacher."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..perflow_core.delta import MODEL_PREFIX


class Adapter(nn.Module):
    """dW = up down for one linear layer or convolution, added to the layer's output; float32.

    up: [out, r]; down: [r, in, ...] as the layer's weight. A fresh one changes nothing: up is zero.
    """

    def __init__(self, layer: nn.Module, rank: int, random: torch.Generator):
        super().__init__()
        out, *inner = layer.weight.shape
        rank = min(rank, out, torch.Size(inner).numel())
        self.up = nn.Parameter(torch.zeros(out, rank))
        self.down = nn.Parameter(torch.empty(rank, *inner))
        nn.init.kaiming_uniform_(self.down, a=5**0.5, generator=random)

    def added(self, layer: nn.Module, x: Tensor) -> Tensor:
        """up down x in the precision of x, shaped as the layer's output."""
        up, down = self.up.to(x.dtype), self.down.to(x.dtype)
        if down.ndim == 2:
            return F.linear(F.linear(x, down), up)
        hidden = F.conv2d(x, down, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
        return F.conv2d(hidden, up[:, :, None, None])


class Adapters(nn.Module):
    """An adapter for every linear layer and convolution of a MODEL's UNet, by the layers' names; `on` or off."""

    def __init__(self, model: ModelPatcher, rank: int, seed: int):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.layers = dict(adaptable(model))
        self.by_layer = nn.ModuleList(Adapter(layer, rank, random) for layer in self.layers.values())
        self.on = False

    def hook(self) -> list[RemovableHandle]:
        """Put them on their layers, until the handles are removed."""
        pairs = zip(self.layers.values(), self.by_layer, strict=True)
        return [layer.register_forward_hook(self._hook(adapter)) for layer, adapter in pairs]

    def _hook(self, adapter: nn.Module) -> Any:
        def add(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return output + adapter.added(layer, args[0]) if self.on else None

        return add

    def named(self) -> Iterator[tuple[str, Adapter]]:
        yield from zip(self.layers, self.by_layer, strict=True)  # type: ignore[arg-type]

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """As ComfyUI's LoRA files have them."""
        found = {}
        for name, adapter in self.named():
            up, down = adapter.up.detach().to("cpu", dtype), adapter.down.detach().to("cpu", dtype)
            found[f"{name}.lora_up.weight"] = up[:, :, None, None].contiguous() if down.ndim == 4 else up
            found[f"{name}.lora_down.weight"] = down.contiguous()
            found[f"{name}.alpha"] = torch.tensor(float(len(down)))  # alpha / rank = 1: no scaling
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave. Raises KeyError or RuntimeError for those of another model or rank."""
        with torch.no_grad():
            for name, adapter in self.named():
                adapter.up.copy_(tensors[f"{name}.lora_up.weight"].reshape(adapter.up.shape))
                adapter.down.copy_(tensors[f"{name}.lora_down.weight"].reshape(adapter.down.shape))


def adaptable(model: ModelPatcher) -> Iterator[tuple[str, nn.Module]]:
    """The UNet's linear layers and convolutions, by their names in ComfyUI."""
    for name, layer in model.model.diffusion_model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            yield MODEL_PREFIX + name, layer
