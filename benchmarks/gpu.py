"""What PeRFlow does on an NVIDIA GPU: waits within a step, seconds of whole pictures, weights in two memory modes.

    python benchmarks/gpu.py [steps] [latency] [returns] [--sizes SDXL] [--modes normal]

steps: what makes the host wait for the GPU in a step of ours and of stock euler, by torch.profiler (SD1.5). latency:
prompts, sampling and VAE at batch 1 and 4, the base with 25 steps beside PeRFlow with 4, 6, 8. returns: Apply PeRFlow
Delta at two strengths beside ModelMergeAdd, in seconds and memory, and whether the plain model comes back bit for bit.
The first two run in the first mode alone. Modes: dynamic (dynamic VRAM, ComfyUI's default), normal (without it).

The models are random, of SD1.5's and SDXL's real size in fp16: 16 GB of files, made on the spot in the folder for
temporary files (TMPDIR; /dev/shm is quick) and removed. Each mode is a process of its own. --small: small UNets at 16
pixels on the CPU.
"""

import argparse
from pathlib import Path
from typing import Any

import measuring

PARTS = ("steps", "latency", "returns")
PIXELS = {"SD1.5": 512, "SDXL": 1024}
MODES = {"dynamic": (), "normal": ("--disable-dynamic-vram",), "cpu": ("--cpu", "--fp16-unet")}  # ComfyUI's arguments


def main() -> None:
    with measuring.made_models(work, arguments) as (folder, chosen):
        for mode in chosen["modes"]:
            measuring.in_own_process(mode, folder, chosen, show=True)


def arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all without")
    parser.add_argument("--sizes", nargs="+", choices=PIXELS, default=[*PIXELS])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["dynamic", "normal"])
    parser.add_argument("--small", action="store_true", help="small UNets, 16 pixels, on the CPU")
    chosen = vars(parser.parse_args())
    if unknown := set(chosen["parts"]) - set(PARTS):
        parser.error(f"{', '.join(unknown)}: expected {', '.join(PARTS)}")
    small = {"modes": ["cpu"]} if chosen["small"] else {}
    return chosen | small | {"parts": chosen["parts"] or PARTS}


def work(comfyui_path: Path, what: str, files: Path, base: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """All measurements of a mode; or the models, made without dynamic VRAM, whose modules have no weights."""
    import gpu_comfyui

    mode = ("cpu" if chosen["small"] else "normal") if what == "make" else what
    comfy = gpu_comfyui.start(comfyui_path, files, base, mode, MODES[mode])
    import full_size
    import torch
    from comfy.model_management import get_torch_device

    with torch.inference_mode():
        if what != "make":
            return measured(comfy, chosen)
        for size in chosen["sizes"]:
            full_size.make_files(files, size, chosen["small"], get_torch_device())
    return {}


def measured(comfy: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    """What each measurement found; an error is a finding, and the next goes on."""
    import torch
    from gpu_measurements import MEASUREMENTS

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    found: dict[str, Any] = {}
    print(f"\n{card}, torch {torch.__version__}, mode {comfy.mode}{', dynamic VRAM' if comfy.dynamic else ''}")
    for part in chosen["parts"]:
        if part in PARTS[:2] and comfy.mode != chosen["modes"][0]:
            continue
        for size in chosen["sizes"][:1] if part == "steps" else chosen["sizes"]:
            print(f"\n{part}, {size}", flush=True)
            try:
                found[f"{part}, {size}"] = MEASUREMENTS[part](comfy, size, 16 if chosen["small"] else PIXELS[size])
            except Exception as error:
                found[f"{part}, {size}"] = {"error": f"{type(error).__name__}: {error}"}
                print(f"  failed: {found[f'{part}, {size}']['error'][:500]}", flush=True)
    return found


if __name__ == "__main__":
    main()
