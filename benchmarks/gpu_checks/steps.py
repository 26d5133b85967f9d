"""Our sampler beside stock euler: what makes the host wait for the device in a step, and the time of a step."""

import collections
import statistics
import time
from collections.abc import Callable
from typing import Any

from .comfy import Comfy, synchronize
from .worker import Found

Run = Callable[[int], None]  # with so many steps
# What a profile calls waiting: CUDA's functions, copies between host and device, PyTorch's operators that read a value.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH", "Memcpy HtoD")
READS = ("aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
FEW, MANY = 4, 20
TARGET = 1.01
STOCK, OURS = "stock euler, base", "PeRFlow Sampler, delta"


def steps(comfy: Comfy, say: Callable[[str], None], size: str, pixels: int, pairs: int, seconds: float) -> Found:
    """The profiles with the delta, as people run it; the time with both samplers on the same weights, interleaved."""
    end = time.monotonic() + seconds
    base = comfy.checkpoint(size)[0]
    stock = sampling(comfy, base, size, pixels, ours=False)
    counts = {
        STOCK: waits_a_step(stock),
        OURS: waits_a_step(sampling(comfy, comfy.accelerated(base, size), size, pixels, ours=True)),
    }
    names = {name for found in counts.values() for name in found}
    more = {name: counts[OURS].get(name, 0) - counts[STOCK].get(name, 0) for name in sorted(names)}
    for what, numbers in (*counts.items(), ("ours less stock's", more)):
        say(f"waits in a step, {what}: {', '.join(f'{name} {n:g}' for name, n in numbers.items()) or 'none'}")
    inputs = {"prediction_type": "diff_eps", "windows": 4, "align_steps": True}
    chord = comfy.run("PeRFlowModelSampling", model=base, **inputs)[0]
    ratios, step = interleaved(stock, sampling(comfy, chord, size, pixels, ours=True), pairs, end)
    say(f"a step of stock euler with CFG at {pixels} px: {1000 * step:.2f} ms")
    for what, found in ratios.items():
        low, median, high = found["quartiles"]
        spread = f"middle half of {found['pairs']} pairs: {low:.4f} to {high:.4f}"
        say(f"time of PeRFlow / stock euler, {what}: {median:.4f} ({spread}; target at most {TARGET})")
    return {"size": size, "pixels": pixels, "waits": counts, "more": more, "ratios": ratios, "seconds_a_step": step}


def sampling(comfy: Comfy, model: Any, size: str, pixels: int, ours: bool) -> Run:
    """Runs with CFG of 4.5; noise, prompts and step lists are made before."""
    import torch
    from comfy.sample import sample_custom
    from comfy.samplers import calculate_sigmas, sampler_object

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, pixels // 8, pixels // 8, generator=generator)
    positive, negative = (prompt(size, generator) for _ in range(2))
    sampler = comfy.solver() if ours else sampler_object("euler")
    table = model.get_model_object("model_sampling")
    counts = (2, FEW, MANY)
    lists = {n: comfy.sigmas(model, n) if ours else calculate_sigmas(table, "simple", n) for n in counts}

    def run(steps: int) -> None:
        latent, sigmas = torch.zeros_like(noise), lists[steps]
        sample_custom(model, noise, 4.5, sampler, sigmas, positive, negative, latent, disable_pbar=True, seed=0)
        synchronize()

    return run


def prompt(size: str, generator: Any) -> list[Any]:
    import torch

    text = torch.randn(1, 77, 2048 if size == "SDXL" else 768, generator=generator)
    return [[text, {"pooled_output": torch.randn(1, 1280, generator=generator)} if size == "SDXL" else {}]]


def waits_a_step(run: Run) -> dict[str, float]:
    """How often each happens in a step: what MANY steps have more than FEW, so that a run's begin and end are out."""
    profiled(run, 2)  # the first has more to set up
    few, many = profiled(run, FEW), profiled(run, MANY)
    differences = {name: (many[name] - few[name]) / (MANY - FEW) for name in sorted(many)}
    return {name: number for name, number in differences.items() if number}


def profiled(run: Run, steps: int) -> collections.Counter[str]:
    import torch
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        run(steps)
    counts: collections.Counter[str] = collections.Counter()
    for event in profile.profiler.kineto_results.events():  # the events of PyTorch's own table, without making it
        name = event.name()
        if name.startswith((*WAITS, *READS)):
            counts[name.partition(" (")[0]] += 1
    return counts


def interleaved(stock: Run, ours: Run, pairs: int, end: float) -> tuple[dict[str, Found], float]:
    """Ratios of pairs, at FEW and MANY steps and of the steps between; the pairs stop where the time is up."""
    runs = {STOCK: stock, OURS: ours}
    for run in runs.values():
        run(FEW)
    ratios: dict[str, list[float]] = collections.defaultdict(list)
    steps = []
    for i in range(pairs):
        if i >= 3 and time.monotonic() > end:
            break
        seconds = {}
        for n in (FEW, MANY):
            for name in reversed(runs) if i % 2 else runs:
                seconds[name, n] = timed(runs[name], n)
            ratios[f"a run of {n} steps"].append(seconds[OURS, n] / seconds[STOCK, n])
        between = {name: (seconds[name, MANY] - seconds[name, FEW]) / (MANY - FEW) for name in runs}
        ratios["a step"].append(between[OURS] / between[STOCK])
        steps.append(between[STOCK])
    found = {what: {"pairs": len(r), "quartiles": statistics.quantiles(r, n=4), "all": r} for what, r in ratios.items()}
    return found, statistics.median(steps)


def timed(run: Run, steps: int) -> float:
    synchronize()
    started = time.perf_counter()
    run(steps)
    return time.perf_counter() - started
