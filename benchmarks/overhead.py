"""What PeRFlow sampling costs beside stock euler, as ratios measured side by side, and the pack's import time.

    python benchmarks/overhead.py [pairs] [--tiny]

Both samplers call the same small UNet of SD1.5's layout (37 M weights, 256 px, CFG 4.5) four times. Runs alternate, the
order within a pair too; printed is the median of the ratios of the pairs, so that a slow moment hits both sides.
--tiny: a tiny UNet at 64 px and few imports, to try this.

The import is timed as users have it, with its bytecode stored. Python stores it by a module's path, so the first import
of a new folder compiles every module; that time is printed too.
"""

import argparse
import statistics
from pathlib import Path

import measuring


def main() -> None:
    measuring.enter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", type=int, default=15)
    parser.add_argument("--tiny", action="store_true", help="a tiny UNet at 64 px and few imports")
    options = parser.parse_args()
    with measuring.small_comfyui() as (comfyui, folder):
        print("\nmaking a small UNet ...", flush=True)
        measuring.compare(make_runs(comfyui, folder, options.tiny), options.pairs)
        tell_import(comfyui, folder, 3 if options.tiny else 20)


def make_runs(comfyui, folder: Path, tiny: bool) -> dict[str, measuring.Run]:
    """Four model calls each, on one UNet in memory."""
    import comfy.samplers
    import comfy.sd
    import torch
    from trial import small_models

    preset, size = (small_models.SD15_TINY, 8) if tiny else (small_models.SD15_SMALL, 32)
    file = small_models.make_unet(folder / "unet.safetensors", preset)
    stock = comfy.sd.load_diffusion_model(str(file))
    nodes = comfyui.nodes
    (perflow,) = nodes["PeRFlowModelSampling"].execute(stock, "diff_eps", 4, True).result
    (schedule,) = nodes["PeRFlowWindowSchedule"].execute(perflow, 4, 1.0, "zero", "").result
    (solver,) = nodes["PeRFlowSampler"].execute("euler").result
    euler = comfy.samplers.sampler_object("euler")
    simple = comfy.samplers.calculate_sigmas(stock.get_model_object("model_sampling"), "simple", 4)
    karras = comfy.samplers.calculate_sigmas(perflow.get_model_object("model_sampling"), "karras", 4)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, size, size, generator=generator)
    positive, negative = ([[torch.randn(1, 77, 768, generator=generator), {}]] for _ in range(2))

    def run(model, sampler, sigmas) -> measuring.Run:
        return lambda: measuring.sample(model, noise, 4.5, sampler, sigmas, positive, negative)

    return {
        "stock euler": run(stock, euler, simple),
        "stock euler again": run(stock, euler, simple.clone()),
        "PeRFlow Sampler": run(perflow, solver, schedule),
        "KSampler's list, aligned": run(perflow, euler, karras),
    }


def tell_import(comfyui, folder: Path, times: int) -> None:
    """How long ComfyUI's own loader takes for the pack, and the modules that ComfyUI had not imported by itself."""
    import asyncio

    from trial import process

    import nodes

    loop = asyncio.new_event_loop()
    new = [process.load_pack(loop, nodes, measuring.REPOSITORY, folder / f"import{i}") for i in range(times)]
    first = statistics.median(loaded.seconds_to_load for loaded in new)
    known = statistics.median(process.load_again(loop, nodes, comfyui) for _ in range(times))
    print(f"import of the pack: {1000 * known:.1f} ms; {1000 * first:.1f} ms where it is compiled, medians of {times}")
    more = sorted(comfyui.imported_by_loading)
    print(f"modules that it brings in beside its own: {', '.join(more) or 'none'}")


if __name__ == "__main__":
    main()
