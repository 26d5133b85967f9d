"""A MODEL's UNet, lent for training: teacher without its adapters, student with them, one copy of the weights."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..sampling.flow_windows import flow_base
from ..weights.unet_weights import layers
from .adapters import Adapters
from .recomputing import blocks_recomputed, layers_recomputed

Conditions = Mapping[str, Any]


class TrainingUNet:
    """m = UNet(z, T): the network itself, with what ComfyUI does around it but without a noise schedule.

    Use it inside `with loaded()`, outside of inference mode; the weights are ComfyUI's again afterwards.
    """

    def __init__(self, model: ModelPatcher, rank: int, seed: int, gradient_checkpointing: bool, offloading: bool):
        self.patcher = _without_dynamic_vram(model)
        sampling = model.get_model_object("model_sampling")
        self.patcher.add_object_patch(
            "model_sampling", _velocity(sampling) if flow_base(sampling) else _WithoutSchedule()
        )
        _multiply_out(self.patcher)
        self.device: torch.device = self.patcher.load_device
        self.adapters = Adapters(self.patcher, rank, seed)
        self.gradient_checkpointing, self.offloading = gradient_checkpointing, offloading

    @contextlib.contextmanager
    def loaded(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.callback(comfy.model_management.soft_empty_cache)
            # All of it or as little as can be, and nothing else, as stock training does: activations need the rest.
            comfy.model_management.load_models_gpu(
                [self.patcher], memory_required=1e20, force_full_load=not self.offloading
            )
            unet = self.patcher.model.diffusion_model
            stack.enter_context(_parameters_for_autograd(unet))
            for handle in self.adapters.hook():
                stack.callback(handle.remove)
            comfy.model_management.in_training = True  # ComfyUI's own switch: operations that have a gradient
            stack.callback(setattr, comfy.model_management, "in_training", False)
            if self.offloading:
                stack.enter_context(layers_recomputed(unet))
            if self.gradient_checkpointing:
                stack.enter_context(blocks_recomputed(unet))
            yield

    def __call__(self, z: Tensor, T: Tensor, conditions: Conditions, student: bool) -> Tensor:
        """m of shape [B, ...], float32; z: [B, ...], T: [B], in 0..1000, of a flow model sigma."""
        options = comfy.patcher_extension.copy_nested_dicts(self.patcher.model_options["transformer_options"])
        options |= {"cond_or_uncond": [0], "sigmas": T}
        self.adapters.on = student
        return self.patcher.model.apply_model(z, T.float(), **conditions, transformer_options=options)

    def add_whole(self, differences: Mapping[str, Tensor]) -> None:
        """Give the student whole differences dW of weights that ComfyUI casts when it uses them, by its names."""
        for key, dW in differences.items():
            self.adapters.whole[key] = dW = dW.to(self.device, torch.float32)
            self.patcher.add_weight_wrapper(key, partial(self._with_difference, dW))

    def _with_difference(self, dW: Tensor, weight: Tensor) -> Tensor:
        return weight + dW.to(weight) if self.adapters.on else weight


def _without_dynamic_vram(model: ModelPatcher) -> ModelPatcher:
    """A clone whose weights stay in place from forward to backward, which "dynamic VRAM" would move.

    It shares the weights, but where they are dynamic it reads the file anew.
    """
    try:
        return model.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise ValueError(
            f"This model ({type(model.model).__name__}) cannot be read from a file again ({error}), expected a model "
            "from a loader node: save it with ModelSave and load that file, or start ComfyUI with "
            "--disable-dynamic-vram."
        ) from error


def _multiply_out(model: ModelPatcher) -> None:
    """Have quantised weights multiplied out in every call, for teacher and student: a gradient through their own
    multiplications is rounded, or there is none. ComfyUI multiplies out every weight that has a function on it.
    """
    for name, layer in layers(model):
        if hasattr(layer, "convert_weight"):
            model.add_weight_wrapper(f"{name}.weight", lambda weight: weight)


class _WithoutSchedule(nn.Module):
    """In place of a model-sampling object: latent and timestep reach the UNet as they are, and the result is m."""

    def calculate_input(self, T: Tensor, z: Tensor) -> Tensor:
        return z

    def timestep(self, T: Tensor) -> Tensor:
        return T

    def calculate_denoised(self, T: Tensor, m: Tensor, z: Tensor) -> Tensor:
        return m


def _velocity(sampling: Any) -> Any:
    """A flow model's own sampling, but that the result is its velocity m."""
    velocity = copy.copy(sampling)
    velocity.calculate_denoised = lambda sigma, m, x: m
    return velocity


@contextlib.contextmanager
def _parameters_for_autograd(module: nn.Module) -> Iterator[None]:
    """Weights that ComfyUI loaded in inference mode seen as ordinary tensors without a gradient, on the same memory.

    autograd refuses the former ("Inference tensors cannot be saved for backward"); a copy would take the memory twice.
    Older ComfyUIs load weights outside of it with a gradient, which nobody asks for here.
    """
    lent = []
    try:
        for part in module.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                if (parameter.is_inference() or parameter.requires_grad) and parameter.is_floating_point():
                    setattr(part, name, nn.Parameter(_same_memory(parameter), requires_grad=False))
                    lent.append((part, name, parameter))
        yield
    finally:
        for part, name, parameter in lent:
            setattr(part, name, parameter)


def _same_memory(tensor: Tensor) -> Tensor:
    if is_traceable_wrapper_subclass(tensor):  # a quantised weight: some tensors, and how they belong together
        names, form = tensor.__tensor_flatten__()
        parts = {name: _same_memory(getattr(tensor, name)) for name in names}
        return type(tensor).__tensor_unflatten__(parts, form, tensor.shape, tensor.stride())
    view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return view.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
