"""What PeRFlow sampling costs beside stock euler, as ratios measured side by side, and the pack's import time.

    python benchmarks/overhead.py [pairs]

Both samplers call the same small UNet of SD1.5's layout (37 M weights, 256 px, CFG 4.5) four times. Runs alternate, the
order within a pair too; printed is the median of the ratios of the pairs, so that a slow moment hits both sides.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "scripts"))

import environment  # noqa: E402

PAIRS = 15
IMPORTS = 20


def main() -> None:
    comfyui_path = environment.enter()
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    with tempfile.TemporaryDirectory() as folder:
        from trial import process

        comfyui = process.start(comfyui_path, REPOSITORY, Path(folder))
        print("\nmaking a small UNet ...", flush=True)
        runs = make_runs(comfyui, Path(folder))
        for name in ("stock euler again", "PeRFlow Sampler", "KSampler's list, aligned"):
            ratio, low, high = compare(runs["stock euler"], runs[name], pairs)
            print(
                f"{name} / stock euler: {ratio:.4f} (middle half of {pairs} pairs: {low:.4f} to {high:.4f})", flush=True
            )
        print(f"import of the pack: {1000 * import_seconds(process, Path(folder)):.1f} ms, median of {IMPORTS}")


def make_runs(comfyui, folder: Path) -> dict[str, Callable[[], object]]:
    """Four model calls each, on one UNet in memory."""
    import comfy.sample
    import comfy.samplers
    import comfy.sd
    import torch
    from trial import small_models

    file = small_models.make_unet(folder / "unet.safetensors", small_models.SD15_SMALL)
    stock = comfy.sd.load_diffusion_model(str(file))
    nodes = comfyui.nodes
    (perflow,) = nodes["PeRFlowModelSampling"].execute(stock, "diff_eps", 4, True).result
    (schedule,) = nodes["PeRFlowWindowSchedule"].execute(perflow, 4, 1.0, "zero", "").result
    (solver,) = nodes["PeRFlowSampler"].execute("euler").result
    euler = comfy.samplers.sampler_object("euler")
    simple = comfy.samplers.calculate_sigmas(stock.get_model_object("model_sampling"), "simple", 4)
    karras = comfy.samplers.calculate_sigmas(perflow.get_model_object("model_sampling"), "karras", 4)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, 32, 32, generator=generator)
    positive, negative = ([[torch.randn(1, 77, 768, generator=generator), {}]] for _ in range(2))

    def run(model, sampler, sigmas) -> Callable[[], object]:
        latent = torch.zeros_like(noise)
        return lambda: comfy.sample.sample_custom(
            model, noise.clone(), 4.5, sampler, sigmas, positive, negative, latent, disable_pbar=True, seed=0
        )

    return {
        "stock euler": run(stock, euler, simple),
        "stock euler again": run(stock, euler, simple.clone()),
        "PeRFlow Sampler": run(perflow, solver, schedule),
        "KSampler's list, aligned": run(perflow, euler, karras),
    }


def compare(base: Callable[[], object], other: Callable[[], object], pairs: int) -> tuple[float, float, float]:
    """Median and quartiles of time(other) / time(base)."""
    base(), other()
    ratios = []
    for i in range(pairs):
        seconds = {run: timed(run) for run in ((base, other) if i % 2 else (other, base))}
        ratios.append(seconds[other] / seconds[base])
    low, median, high = statistics.quantiles(ratios, n=4)
    return median, low, high


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def import_seconds(process, folder: Path) -> float:
    """Median time of ComfyUI's own loader for the pack; each time under a new name, so that nothing is cached."""
    import asyncio

    import nodes

    loop = asyncio.new_event_loop()
    seconds = []
    for i in range(IMPORTS):
        loaded = process.load_pack(loop, nodes, REPOSITORY, folder / f"import{i}")
        seconds.append(loaded.seconds_to_load)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
