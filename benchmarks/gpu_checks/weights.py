"""Deltas on the memory modes, with hooks and torch.compile, and extracted: what comes out, the memory, the seconds."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring

from . import models, steps
from .comfy import Clock, Comfy, nothing_loaded
from .worker import Found

GB = 1e9
PREDICTION = "diff_eps"  # for all of them, so that they differ by the weights alone
Say = Callable[[str], None]
PLAIN, FULL, HALF, MERGED = "plain", "delta", "delta at 0.5", "ModelMergeAdd"


def memory(comfy: Comfy, say: Say, size: str, pixels: int, rounds: int, seconds: float) -> Found:
    """The model plain, with the delta, at another strength, and with the stock node's merge, in turn.

    A run is the node, and two steps with CFG. Every way has to give the same numbers in every round.
    """
    end = time.monotonic() + seconds
    before = nothing_loaded()
    base = comfy.checkpoint(size)[0]
    delta = comfy.run("UNETLoader", unet_name=models.delta_name(size), weight_dtype="default")[0]
    chord = {"prediction_type": PREDICTION, "windows": 4, "align_steps": True}
    ways: dict[str, Callable[[], Any]] = {
        PLAIN: lambda: comfy.run("PeRFlowModelSampling", model=base, **chord)[0],
        FULL: lambda: comfy.accelerated(base, size, 1.0, PREDICTION),
        MERGED: lambda: comfy.run(
            "PeRFlowModelSampling", model=comfy.run("ModelMergeAdd", model1=base, model2=delta)[0], **chord
        )[0],
        HALF: lambda: comfy.accelerated(base, size, 0.5, PREDICTION),
    }
    found: dict[str, list[Found]] = {name: [] for name in ways}
    results: dict[str, list[Any]] = {name: [] for name in ways}
    for i in range(rounds):
        for name in ways if i % 2 == 0 else reversed(ways):
            if results[PLAIN] and all(results.values()) and time.monotonic() > end:
                break
            with Clock() as clock:
                results[name].append(sampled(comfy, ways[name](), size, pixels))
            found[name].append({"seconds": clock.seconds, "peak": (clock.peak - before) / GB})
    with Clock() as clock:
        results[PLAIN].append(sampled(comfy, ways[PLAIN](), size, pixels))
    found[PLAIN].append({"seconds": clock.seconds, "peak": (clock.peak - before) / GB})
    for name, runs in found.items():
        numbers = ", ".join(f"{run['seconds']:.2f}" for run in runs)
        peak = max(run["peak"] for run in runs)
        say(f"  {size}, {comfy.mode}, {name}: {numbers} s; peak {peak:.2f} GB of the card")
    checks = compared(results)
    say(f"  {size}, {comfy.mode}: " + "; ".join(f"{name}: {value}" for name, value in checks.items()))
    return {"mode": comfy.mode, "dynamic": comfy.dynamic, "size": size, "runs": found, "checks": checks}


def compared(results: dict[str, list[Any]]) -> Found:
    """Whether the same way gave the same numbers each time, and how far the ways are apart."""
    first = {name: r[0] for name, r in results.items()}
    same = {name: all(bool((r[0] == other).all()) for other in r[1:]) for name, r in results.items()}
    return {
        "finite": all(bool(one.isfinite().all()) for one in first.values()),
        "the plain model returns exactly": same[PLAIN],
        "every way repeats exactly": all(same.values()),
        "largest difference of a repetition": max(difference(o, r[0]) for r in results.values() for o in r),
        "delta against plain": difference(first[FULL], first[PLAIN]),
        "delta against half": difference(first[FULL], first[HALF]),
        "delta against ModelMergeAdd": difference(first[FULL], first[MERGED]),
    }


def difference(one: Any, other: Any) -> float:
    """RMS, relative to the other's."""
    return round(float(((one - other).double().square().mean() / other.double().square().mean()).sqrt()), 6)


def sampled(comfy: Comfy, model: Any, size: str, pixels: int, positive: Any = None, negative: Any = None) -> Any:
    """Two steps with CFG, by PeRFlow's sampler."""
    import torch
    from comfy.sample import sample_custom

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, pixels // 8, pixels // 8, generator=generator)
    texts = [steps.prompt(size, generator) for _ in range(2)]
    positive, negative = positive or texts[0], negative or texts[1]
    sigmas, latent = comfy.sigmas(model, 2), torch.zeros_like(noise)
    return sample_custom(
        model, noise, 4.5, comfy.solver(), sigmas, positive, negative, latent, disable_pbar=True, seed=0
    ).cpu()


def hooks(comfy: Comfy, say: Say, size: str, pixels: int) -> Found:
    """A LoRA on the prompts together with the delta, against the same LoRA on the model."""
    import torch

    nothing_loaded()
    accelerated = comfy.accelerated(comfy.checkpoint(size)[0], size)
    lora = {"lora_name": models.lora_name(size), "strength_model": 1.0}
    made = comfy.run("CreateHookLoraModelOnly", **lora)[0]
    generator = torch.Generator().manual_seed(1)
    pair = [steps.prompt(size, generator) for _ in range(2)]
    inputs = {"strength": 1.0, "set_cond_area": "default", "hooks": made}
    hooked = comfy.run("PairConditioningSetProperties", positive_NEW=pair[0], negative_NEW=pair[1], **inputs)
    with Clock() as clock:
        found = sampled(comfy, accelerated, size, pixels, *hooked)
    styled = sampled(comfy, comfy.run("LoraLoaderModelOnly", model=accelerated, **lora)[0], size, pixels, *pair)
    plain = sampled(comfy, accelerated, size, pixels, *pair)
    checks = {"hook against the LoRA on the model": difference(found, styled)}
    checks["hook against no LoRA"] = difference(found, plain)
    say(f"  {size}, {comfy.mode}, LoRA hook with the delta: {checks}, {clock.seconds:.2f} s")
    return {"mode": comfy.mode, "size": size, "checks": checks, "seconds": clock.seconds}


def compiled(comfy: Comfy, say: Say, size: str, pixels: int, backend: str) -> Found:
    """The stock TorchCompileModel node after Apply PeRFlow Delta."""
    import asyncio

    nothing_loaded()
    nodes = importlib.import_module("nodes")
    path = Path(nodes.__file__ or "").parent / "comfy_extras" / "nodes_torch_compile.py"
    assert asyncio.new_event_loop().run_until_complete(nodes.load_custom_node(str(path), module_parent="comfy_extras"))
    accelerated = comfy.accelerated(comfy.checkpoint(size)[0], size)
    expected = sampled(comfy, accelerated, size, pixels)
    model = comfy.run("TorchCompileModel", model=accelerated, backend=backend)[0]
    times, results = [], []
    for _ in range(3):
        with Clock() as clock:
            results.append(sampled(comfy, model, size, pixels))
        times.append(clock.seconds)
    found = {"seconds": times, "against not compiled": difference(results[-1], expected)}
    say(f"  {size}, {comfy.mode}, torch.compile ({backend}) on the delta: {found}")
    return {"mode": comfy.mode, "size": size, "backend": backend, **found}


def extract(comfy: Comfy, say: Say, size: str, rank: int) -> Found:
    """Extract PeRFlow Delta of the model with the delta and the base."""
    before = nothing_loaded()
    base = comfy.checkpoint(size)[0]
    accelerated = comfy.accelerated(base, size)
    inputs = {"rank": rank, "energy": 0.0, "prediction_type": "auto", "windows": 4}
    with measuring.Growth() as growth, Clock() as clock:
        path = comfy.run(
            "PeRFlowExtractDelta",
            model_perflow=accelerated,
            model_base=base,
            filename_prefix=f"{size}-{rank}",
            **inputs,
        )[0]
    size_of_file = Path(path).stat().st_size
    Path(path).unlink()
    found = {
        "seconds": clock.seconds,
        "peak_card": (clock.peak - before) / GB,
        "peak_ram_anonymous": growth.anonymous / GB,
        "peak_ram": growth.resident / GB,
        "file": size_of_file / GB,
    }
    what = f"rank {rank}" if rank else "full"
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in found.items())
    say(f"  Extract PeRFlow Delta, {size}, {what}, mode {comfy.mode}: {numbers} (s, GB)")
    return {"mode": comfy.mode, "size": size, "rank": rank, **found}
