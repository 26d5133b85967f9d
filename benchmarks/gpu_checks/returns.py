"""Whether the plain model comes back bit for bit: after nothing, a reload, another model, stock patches, our delta.

What differs after "nothing" or "a reload" as well is not a patch's doing: then the weights are the same bits (which is
looked at) and the device multiplies them differently.
"""

from collections.abc import Callable
from typing import Any

from . import models
from .comfy import Comfy, nothing_loaded
from .weights import PREDICTION, Say, difference, sampled
from .worker import Found

CHORD = {"prediction_type": PREDICTION, "windows": 4, "align_steps": True}


def returns(comfy: Comfy, say: Say, size: str, pixels: int) -> Found:
    """Plain, something between, plain again: for each thing between how far the result and the weights are off."""
    nothing_loaded()
    base = comfy.checkpoint(size)[0]
    other = comfy.run("UNETLoader", unet_name=models.delta_name(size), weight_dtype="default")[0]
    between: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "a reload": reload,
        "another model": lambda: comfy.run("PeRFlowModelSampling", model=other, **CHORD)[0],
        "ModelMergeAdd": lambda: plain(comfy, comfy.run("ModelMergeAdd", model1=base, model2=other)[0]),
        "Apply PeRFlow Delta": lambda: comfy.accelerated(base, size, 1.0, PREDICTION),
    }
    if (comfy.folder / models.lora_name(size)).is_file():
        lora = {"lora_name": models.lora_name(size), "strength_model": 1.0}
        between["Load LoRA"] = lambda: plain(comfy, comfy.run("LoraLoaderModelOnly", model=base, **lora)[0])
    sampled(comfy, plain(comfy, base), size, pixels)  # the first run of a process chooses its kernels
    found = {}
    for name, make in between.items():
        before, stood = sampled(comfy, plain(comfy, base), size, pixels), state(base)
        if (model := make()) is not None:
            sampled(comfy, model, size, pixels)
        after, stands = sampled(comfy, plain(comfy, base), size, pixels), state(base)
        found[name] = {"result": difference(after, before), **changed(stood, stands)}
        say(f"  {size}, {comfy.mode}, plain, {name}, plain: {found[name]}")
    return {"mode": comfy.mode, "dynamic": comfy.dynamic, "size": size, "between": found, **kernels()}


def reload() -> None:
    nothing_loaded()


def plain(comfy: Comfy, model: Any) -> Any:
    return comfy.run("PeRFlowModelSampling", model=model, **CHORD)[0]


def state(model: Any) -> dict[str, tuple[Any, ...]]:
    """Of every weight as it is loaded: a sum over its bits, device, strides, whether it is cast, where it starts."""
    found = {}
    for name, layer in model.model.diffusion_model.named_modules():
        for own, weight in layer.named_parameters(recurse=False):
            cast = (getattr(layer, "comfy_cast_weights", False), len(getattr(layer, f"{own}_function", ())))
            found[f"{name}.{own}"] = (bits(weight), str(weight.device), weight.stride(), cast, weight.data_ptr() % 512)
    return found


def bits(weight: Any) -> int:
    """The sum of its bits as whole numbers, which no order of adding changes: one weight that differs is seen."""
    import torch

    if weight.is_meta:  # of a model with dynamic VRAM that was not read yet
        return 0
    whole = weight.detach().contiguous().flatten()
    return int(whole.view(torch.int32 if whole.nbytes % 4 == 0 else torch.uint8).sum(dtype=torch.int64))


def changed(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> dict[str, int]:
    """How many weights differ in each of these."""
    names = ("bits", "device", "strides", "casting", "alignment")
    return {name: sum(before[key][i] != after[key][i] for key in before) for i, name in enumerate(names)}


def kernels() -> Found:
    """What PyTorch may choose kernels by."""
    import torch

    return {
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fp16_reduced_sums": torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        "cudnn": torch.backends.cudnn.version(),
    }
