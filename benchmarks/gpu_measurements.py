"""What benchmarks/gpu.py measures: waits in a step, seconds of pictures, and models with deltas that return.

Each takes the ComfyUI, the model's size and the pixels of a picture's side, prints its lines and returns its numbers.
"""

import collections
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import full_size
import measuring
import torch
from gpu_comfyui import CHORD, GB, Comfy, noise_and_prompts, nothing_loaded, synchronize, used

Found = dict[str, Any]
PREDICTION = "diff_eps"  # for all of them, so that they differ by the weights alone

# --- what makes the host wait for the device in a step ---

# What a profile calls waiting: CUDA's functions, copies between host and device, PyTorch's operators that read a value.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH", "Memcpy HtoD",
         "aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")  # fmt: skip
FEW, MANY = 4, 20  # steps


def steps(comfy: Comfy, size: str, pixels: int) -> Found:
    """Stock euler on the base, and PeRFlow Sampler with the delta, as people run them."""
    base = comfy.checkpoint(size)[0]
    found = {
        "stock euler, base": waits_a_step(sampling(comfy, base, size, pixels, ours=False)),
        "PeRFlow Sampler, delta": waits_a_step(sampling(comfy, comfy.accelerated(base, size), size, pixels, ours=True)),
    }
    for what, waits in found.items():
        print(f"waits in a step, {what}: {', '.join(f'{name} {n:g}' for name, n in waits.items()) or 'none'}")
    return {"waits": found}


def sampling(comfy: Comfy, model: Any, size: str, pixels: int, ours: bool) -> Callable[[int], None]:
    """Runs of so many steps with CFG of 4.5; noise, prompts and step lists are made before."""
    from comfy.samplers import calculate_sigmas, sampler_object

    noise, *prompts = noise_and_prompts(size, pixels)
    sampler = comfy.solver() if ours else sampler_object("euler")
    table = model.get_model_object("model_sampling")
    lists = {n: comfy.sigmas(model, n) if ours else calculate_sigmas(table, "simple", n) for n in (2, FEW, MANY)}

    def run(steps: int) -> None:
        measuring.sample(model, noise, 4.5, sampler, lists[steps], *prompts)
        synchronize()

    return run


def waits_a_step(run: Callable[[int], None]) -> dict[str, float]:
    """How often each happens in a step: what MANY steps have more than FEW, without a run's start and end."""
    profiled(run, 2)  # the first has more to set up
    few, many = profiled(run, FEW), profiled(run, MANY)
    differences = {name: (many[name] - few[name]) / (MANY - FEW) for name in sorted(many)}
    return {name: number for name, number in differences.items() if number}


def profiled(run: Callable[[int], None], steps: int) -> collections.Counter[str]:
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with torch.profiler.profile(activities=activities) as profile:
        run(steps)
    names = (event.name() for event in profile.profiler.kineto_results.events())  # PyTorch's own table, not made
    return collections.Counter(name.partition(" (")[0] for name in names if name.startswith(WAITS))


# --- seconds of whole pictures without loading: prompts, sampling, VAE ---

RUNS, ENOUGH = 5, 4.0  # runs of a row at most, and seconds after which it gets no further one
WAYS = ((False, 25, 7.0), (True, 4, 4.5), (True, 6, 4.5), (True, 8, 4.5), (True, 4, 1.0))  # PeRFlow, steps, CFG


def latency(comfy: Comfy, size: str, pixels: int) -> Found:
    """The base (DPM++ 2M Karras) and PeRFlow, each warmed up by two steps, at batch 1 and 4."""
    model, clip, vae = comfy.checkpoint(size)
    models = {False: model, True: comfy.accelerated(model, size)}
    rows = []
    print("| model | batch | way | seconds (runs: from - to) |\n|---|---|---|---|")
    for batch in (1, 4):
        for perflow in models:
            picture(comfy, (models[perflow], clip, vae), perflow, 2, 4.5, pixels, batch)
        for perflow, n, cfg in WAYS:
            times: list[float] = []
            while len(times) < RUNS and sum(times) < ENOUGH:
                synchronize()
                began = time.perf_counter()
                picture(comfy, (models[perflow], clip, vae), perflow, n, cfg, pixels, batch)
                synchronize()
                times.append(time.perf_counter() - began)
            way = f"{'PeRFlow' if perflow else 'base, dpmpp_2m karras'}, {n} steps, CFG {cfg:g}"
            spread = f"{len(times)}: {min(times):.3f} - {max(times):.3f}"
            print(f"| {size} {pixels} px | {batch} | {way} | {statistics.median(times):.3f} ({spread}) |", flush=True)
            rows.append({"batch": batch, "way": way, "seconds": times})
    return {"rows": rows}


def picture(
    comfy: Comfy, loaded: tuple[Any, Any, Any], perflow: bool, steps: int, cfg: float, pixels: int, batch: int
) -> None:
    """As the nodes of a graph, one after the other."""
    model, clip, vae = loaded
    texts = ("a photograph of a red house by the sea, evening light, highly detailed", "blurry, low quality")
    positive, negative = (comfy.run("CLIPTextEncode", clip=clip, text=text) for text in texts)
    latent = comfy.run("EmptyLatentImage", width=pixels, height=pixels, batch_size=batch)
    common = dict(model=model, positive=positive, negative=negative, latent_image=latent, cfg=cfg)
    if perflow:
        chosen = dict(sampler=comfy.solver(), sigmas=comfy.sigmas(model, steps), add_noise=True, noise_seed=0)
        samples = comfy.run("SamplerCustom", **common, **chosen)[0]
    else:
        chosen = dict(seed=0, steps=steps, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0)
        samples = comfy.run("KSampler", **common, **chosen)
    comfy.run("VAEDecode", vae=vae, samples=samples)


# --- deltas in a memory mode: what they take, and whether the plain model comes back bit for bit ---

FULL, HALF, MERGED = "Apply PeRFlow Delta", "Apply PeRFlow Delta at 0.5", "ModelMergeAdd"


def returns(comfy: Comfy, size: str, pixels: int) -> Found:
    """Plain, something between, plain again: what that takes, and how far the result and the weights are off then.

    A run is the node, and two steps with CFG. What differs after "nothing" or "a reload" as well is not a patch's
    doing: then the weights are the same bits (which is looked at) and the device multiplies them differently.
    """
    empty = nothing_loaded()
    base = comfy.checkpoint(size)[0]
    other = comfy.run("UNETLoader", unet_name=full_size.file_name(size, "delta"), weight_dtype="default")
    between: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "a reload": nothing_loaded,
        "another model": lambda: plain(comfy, other),
        MERGED: lambda: plain(comfy, comfy.run("ModelMergeAdd", model1=base, model2=other)),
        FULL: lambda: comfy.accelerated(base, size, 1.0, PREDICTION),
        HALF: lambda: comfy.accelerated(base, size, 0.5, PREDICTION),
    }
    if (comfy.folder / full_size.file_name(size, "lora")).is_file():
        lora = {"lora_name": full_size.file_name(size, "lora"), "strength_model": 1.0}
        between["Load LoRA"] = lambda: plain(comfy, comfy.run("LoraLoaderModelOnly", model=base, **lora))
    sampled(comfy, plain(comfy, base), size, pixels)  # the first run of a process chooses its kernels
    found, results = {}, {}
    for name, make in between.items():
        before, stood = sampled(comfy, plain(comfy, base), size, pixels), dict(state(base))
        with measuring.Peaks(lambda: {"card": used()}) as clock:  # what ends in it waits for the card
            model = make()
            if name not in ("nothing", "a reload"):
                results[name] = sampled(comfy, model, size, pixels)
        after, stands = sampled(comfy, plain(comfy, base), size, pixels), dict(state(base))
        peak = (clock.start["card"] + clock.growth["card"] - empty) / GB
        found[name] = {"result": difference(after, before), **changed(stood, stands)}
        print(
            f"  plain, {name} ({clock.seconds:.2f} s; peak {peak:.2f} GB of the card), plain: {found[name]}", flush=True
        )
    checks = {
        "finite": all(bool(one.isfinite().all()) for one in results.values()),
        "delta against plain": difference(results[FULL], after),
        "delta against half": difference(results[FULL], results[HALF]),
        "delta against ModelMergeAdd": difference(results[FULL], results[MERGED]),
    }
    kernels = {  # what PyTorch may choose kernels by
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fp16_reduced_sums": torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        "cudnn": torch.backends.cudnn.version(),
    }
    print("  " + "; ".join(f"{name}: {value}" for name, value in (checks | kernels).items()))
    return {"between": found, "checks": checks}


def plain(comfy: Comfy, model: Any) -> Any:
    return comfy.run("PeRFlowModelSampling", model=model, prediction_type=PREDICTION, **CHORD)


def difference(one: Any, other: Any) -> float:
    """RMS, relative to the other's."""
    return round(float(((one - other).double().square().mean() / other.double().square().mean()).sqrt()), 6)


def sampled(comfy: Comfy, model: Any, size: str, pixels: int) -> Any:
    """Two steps with CFG, by PeRFlow's sampler."""
    noise, *prompts = noise_and_prompts(size, pixels)
    return measuring.sample(model, noise, 4.5, comfy.solver(), comfy.sigmas(model, 2), *prompts).cpu()


def state(model: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Of every weight as it is loaded: a sum over its bits, device, strides, whether it is cast, where it starts."""
    for name, layer in model.model.diffusion_model.named_modules():
        for own, weight in layer.named_parameters(recurse=False):
            cast = (getattr(layer, "comfy_cast_weights", False), len(getattr(layer, f"{own}_function", ())))
            yield f"{name}.{own}", (bits(weight), str(weight.device), weight.stride(), cast, weight.data_ptr() % 512)


def bits(weight: Any) -> int:
    """The sum of its bits as whole numbers, which no order of adding changes: one weight that differs is seen."""
    if weight.is_meta:  # of a model with dynamic VRAM that was not read yet
        return 0
    whole = weight.detach().contiguous().flatten()
    return int(whole.view(torch.int32 if whole.nbytes % 4 == 0 else torch.uint8).sum(dtype=torch.int64))


def changed(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> dict[str, int]:
    """How many weights differ in each of these."""
    names = ("bits", "device", "strides", "casting", "alignment")
    return {name: sum(before[key][i] != after[key][i] for key in before) for i, name in enumerate(names)}


MEASUREMENTS = {"steps": steps, "latency": latency, "returns": returns}
