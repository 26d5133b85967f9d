"""What applying and extracting a delta cost on weights of SD1.5's real size, as ratios measured side by side.

    python benchmarks/weights.py [apply] [extract] [--pairs 5] [--rank 64] [--small]

apply: from Apply PeRFlow Delta to the end of the first sampled step (8x8 latent, so that weights dominate), against
  - stock: Load Diffusion Model (of the delta file) + ModelMergeAdd, and
  - reading the file once into memory + patching those tensors with ComfyUI's own add_patches.
Each run is a process of its own that has loaded the base model (fp16) and sampled it once; runs alternate; printed is
the median of the ratios of the pairs. Memory is what the process grows by at most: anonymous pages, and all resident
pages, which count the mapped delta file (the system may drop those at any time).

extract: Extract PeRFlow Delta at that rank against ModelMergeSubtract + Extract and Save Lora, in time and kept energy.
Ours runs whole. The stock node takes long, so both are timed on one weight of each shape, one after the other, and the
sums are extrapolated by how many weights have that shape.

The files (5 GB, random) are made on the spot in a temporary folder and removed. --small: a small UNet, to try this.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import full_size
import measuring
from measuring import MB

Tensors = dict[str, Any]
PARTS = ("apply", "extract")
STOCK, PERFLOW, READ = "stock ModelMergeAdd", "Apply PeRFlow Delta", "read + add_patches"


def main() -> None:
    with measuring.made_models(work, arguments) as (folder, chosen):
        size = Path(folder, "delta.safetensors").stat().st_size
        print(f"the delta file has {size / MB:.0f} MB", flush=True)
        if "apply" in chosen["parts"]:
            compare_applying(folder, size, chosen["pairs"])
        if "extract" in chosen["parts"]:
            measuring.in_own_process("extract", folder, chosen, show=True)


def arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help="apply, extract; both without")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each kind")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--small", action="store_true", help="a small UNet, to try this")
    chosen = vars(parser.parse_args())
    if unknown := set(chosen["parts"]) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: expected {' or '.join(PARTS)}")
    return chosen | {"parts": chosen["parts"] or PARTS}


def work(comfyui_path: Path, what: str, files: Path, base: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """One run, in the process made for it."""
    if what == "make":
        full_size.make_difference(files, chosen["small"])
        return {}
    comfyui = measuring.start_comfyui(comfyui_path, files, base)
    if what == "extract":
        compare_extracting(comfyui, files, chosen["rank"])
        return {}
    return apply_once(comfyui, what, files)


# --- apply ---


def compare_applying(folder: str, size: int, pairs: int) -> None:
    def run(what: str) -> Callable[[], dict[str, Any]]:
        return lambda: measuring.in_own_process(what, folder, {})

    found = measuring.in_turn({what: run(what) for what in (STOCK, PERFLOW, READ)}, pairs)

    def ratios(name: str, one: str, other: str) -> list[float]:
        return [a[name] / b[name] for a, b in zip(found[one], found[other], strict=True)]

    def of_file(name: str) -> list[float]:
        return [run[name] / size for run in found[PERFLOW]]

    print(f"{PERFLOW} / {STOCK}:")
    print(f"  time to the first step: {measuring.summary(ratios('seconds', PERFLOW, STOCK))}")
    print(f"  processor time: {measuring.summary(ratios('processor', PERFLOW, STOCK))}")
    print(f"  peak extra anonymous memory: {measuring.summary(ratios('anonymous', PERFLOW, STOCK), 'at most 0.5')}")
    print(f"  peak extra resident memory, mapped file counted: {measuring.summary(ratios('resident', PERFLOW, STOCK))}")
    print(f"{PERFLOW} / size of the file:")
    print(f"  peak extra anonymous memory: {measuring.summary(of_file('anonymous'), 'at most 1.05')}")
    print(f"  in the node alone: {measuring.summary(of_file('node_anonymous'))}")
    print(f"{PERFLOW} / {READ}:")
    print(f"  time to the first step: {measuring.summary(ratios('seconds', PERFLOW, READ), 'at most 1.1')}")
    print(f"  processor time: {measuring.summary(ratios('processor', PERFLOW, READ))}", flush=True)


def apply_once(comfyui: Any, what: str, files: Path) -> dict[str, Any]:
    """Seconds and extra memory up to a patched model's first step; node_...: of the nodes alone."""
    from safetensors.torch import load_file

    nodes = comfyui.nodes
    (base,) = nodes["UNETLoader"]().load_unet("base.safetensors", "default")
    unet = comfyui.module("nodes.comfyui.weights.unet_weights").layout_of(base)
    measuring.first_step(comfyui, base)
    measuring.warm_up(files / "delta.safetensors")
    outputs: list[Any] = []  # as ComfyUI keeps the outputs of all nodes of a graph

    def make() -> Any:
        if what == PERFLOW:
            inputs = dict(prediction_type="auto", windows=0, align_steps=True)
            return nodes["PeRFlowApplyDelta"].execute(base, "delta.safetensors", strength=1.0, **inputs).result[0]
        if what == STOCK:
            outputs.extend(nodes["UNETLoader"]().load_unet("delta.safetensors", "default"))
            return nodes["ModelMergeAdd"]().merge(base, outputs[0])[0]
        patched = base.clone()
        tensors = load_file(files / "delta.safetensors")
        patches = {unet.names[key]: ("diff", (mapped.clone(),)) for key, mapped in tensors.items()}
        assert len(patched.add_patches(patches)) == len(patches)
        return patched

    with measuring.Peaks(measuring.resident) as whole:
        with measuring.Peaks(measuring.resident) as node:
            model = make()
        measuring.first_step(comfyui, model)
    return whole.found() | {f"node_{name}": value for name, value in node.found().items()}


# --- extract ---


def compare_extracting(comfyui: Any, files: Path, rank: int) -> None:
    from safetensors.torch import load_file

    loader = comfyui.nodes["UNETLoader"]()
    perflow, base = (loader.load_unet(f"{name}.safetensors", "default")[0] for name in ("perflow", "base"))
    (diff,) = comfyui.nodes["ModelMergeSubtract"]().merge(perflow, base, 1.0)
    print(f"Extract PeRFlow Delta, rank {rank}, whole ...", flush=True)
    inputs = dict(rank=rank, energy=0.0, prediction_type="auto", windows=4)
    with measuring.Peaks(measuring.resident) as ours:
        path = comfyui.nodes["PeRFlowExtractDelta"].execute(perflow, base, "ours", **inputs).result[0]
    peak = ours.growth["anonymous"] / MB
    print(f"  {ours.seconds:.1f} s ({ours.processor:.1f} s of processor), peak + {peak:.0f} MB anonymous", flush=True)
    written = load_file(path)
    seconds = compare_layers(ways(comfyui, perflow, base, diff, rank), diff, files, written)
    print(f"extrapolated stock / ours as measured whole: {seconds / ours.seconds:.1f} times in time", flush=True)


def ways(comfyui: Any, perflow: Any, base: Any, diff: Any, rank: int) -> tuple[Callable[[str], Tensors], ...]:
    """How the stock node and ours each make the tensors of one weight, from the models on."""
    from comfy_extras.nodes_lora_extract import extract_lora

    patched_weight = comfyui.module("nodes.extract_delta").patched_weight
    core = comfyui.module("perflow_core.weights.extraction")
    stored = comfyui.module("nodes.comfyui.weights.unet_weights").stored_weights(perflow)

    def stock(key: str) -> Tensors:
        factors = extract_lora(diff.patch_weight_to_device(key, diff.load_device, return_weight=True), rank)
        names = (f"{key.removesuffix('.weight')}.lora_{side}.weight" for side in ("up", "down"))
        return {name: factor.contiguous().half().cpu() for name, factor in zip(names, factors, strict=True)}

    def ours(key: str) -> Tensors:
        extraction = core.Extraction(rank, 0.0)
        dtype = core.source_dtype([stored[key]])
        dW = patched_weight(perflow, key, diff.load_device)
        dW -= patched_weight(base, key, diff.load_device)
        extraction.add(key, dW, dtype)
        return extraction.tensors

    return stock, ours


def compare_layers(pair, diff: Any, files: Path, written: Tensors) -> float:
    """Time a weight of each shape both ways; returns the stock node's seconds, extrapolated to all."""
    shapes: dict[tuple[int, ...], list[str]] = {}
    for key, weight in diff.model_state_dict("diffusion_model.").items():
        if weight.ndim > 1:
            shapes.setdefault(tuple(weight.shape), []).append(key)
    count = sum(map(len, shapes.values()))
    print(f"{count} weights of {len(shapes)} shapes, one of each timed: stock's seconds, ours", flush=True)
    totals, theirs, counts = [0.0, 0.0], {}, {keys[0]: len(keys) for keys in shapes.values()}
    for shape, keys in shapes.items():
        seconds = [0.0, 0.0]
        for i, way in enumerate(pair):
            started = time.perf_counter()
            tensors = way(keys[0])
            seconds[i] = time.perf_counter() - started
            theirs |= {} if i else tensors
        print(f"  {'x'.join(map(str, shape))}, {len(keys)} times: {seconds[0]:.3f}, {seconds[1]:.3f}", flush=True)
        totals = [total + len(keys) * each for total, each in zip(totals, seconds, strict=True)]
    print(
        f"extrapolated: stock {totals[0]:.0f} s, ours {totals[1]:.1f} s; "
        f"stock / ours {totals[0] / totals[1]:.1f} times in time (target at least 10)"
    )
    both = written.keys() & theirs.keys()  # ours keeps whole what would not become smaller
    counts = {key: n for key, n in counts.items() if f"{key.removesuffix('.weight')}.lora_up.weight" in both}
    kept = [kept_energy(files, counts, tensors) for tensors in (written, theirs)]
    print(
        f"kept energy, from these {len(counts)} weights: ours {kept[0]:.4f}, stock {kept[1]:.4f} "
        "(target at least stock's)"
    )
    return totals[0]


def kept_energy(files: Path, counts: dict[str, float], tensors: dict[str, Any]) -> float:
    """1 - |dW - up down|^2 / |dW|^2 over these weights, each counted that often; dW = perflow - base."""
    from safetensors import safe_open

    energy = lost = 0.0
    with safe_open(files / "perflow.safetensors", "pt") as perflow, safe_open(files / "base.safetensors", "pt") as base:
        for key, count in counts.items():
            name, module = key.removeprefix("diffusion_model."), key.removesuffix(".weight")
            dW = (perflow.get_tensor(name).float() - base.get_tensor(name).float()).flatten(1)
            up, down = (tensors[f"{module}.lora_{side}.weight"].float().flatten(1) for side in ("up", "down"))
            scale = float(tensors.get(f"{module}.alpha", up.shape[1])) / up.shape[1]
            energy += count * float(dW.square().sum())
            lost += count * float((dW - scale * up @ down).square().sum())
    return 1 - lost / energy


if __name__ == "__main__":
    main()
