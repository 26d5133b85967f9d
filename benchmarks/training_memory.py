"""The memory that Train PeRFlow Delta takes beside sampling with the same model, batch and size.

    python benchmarks/training_memory.py [--small] [--batch 1] [--size 512] [--rank 64] [--steps 2]

Sampling: two steps of stock euler with CFG. Training: some steps of the node, with the adapters' state (the adapters,
their gradients and the optimizer's two averages, 16 bytes a number) taken off. Each runs in a process of its own that
has done nothing else; printed is the highest resident memory over what ComfyUI takes before the model is loaded, and
the ratio, with gradient checkpointing and without. In float32, on the CPU. --small: a small UNet at 64 pixels.
"""

import argparse
from pathlib import Path
from typing import Any

import full_size
import measuring
from measuring import MB

SAMPLING, CHECKPOINTING, PLAIN = "sampling", "training with gradient checkpointing", "training without"
STATE = 16  # bytes a number of the adapters


def main() -> None:
    with measuring.made_models(work, arguments) as (folder, chosen):
        found = {}
        for what in (SAMPLING, CHECKPOINTING, PLAIN):
            found[what] = measuring.in_own_process(what, folder, chosen)
            print(f"  {what}: peak {found[what]['peak'] / MB:.0f} MB, {found[what]['seconds']:.1f} s", flush=True)
    numbers = found[CHECKPOINTING]["numbers"]
    print(f"the adapters have {numbers / 1e6:.1f}M numbers, their state takes {STATE * numbers / MB:.0f} MB")
    for what in (CHECKPOINTING, PLAIN):
        ratio = (found[what]["peak"] - STATE * numbers) / found[SAMPLING]["peak"]
        print(f"{what}, less the adapters' state / sampling: {ratio:.3f} (target with checkpointing at most 1.3)")


def arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a small UNet, 64 pixels")
    parser.add_argument("--batch", type=int, default=1, help="pictures at a time, in both")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2, help="of training")
    chosen = vars(parser.parse_args())
    return chosen | ({"size": 64} if chosen["small"] else {})


def work(comfyui_path: Path, what: str, files: Path, base: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    """Make the model, or measure, in the process made for it."""
    if what == "make":
        from trial import small_models

        small_models.make_unet(files / "base.safetensors", full_size.sd15(chosen["small"]))
        return {}
    comfyui = measuring.start_comfyui(comfyui_path, files, base)
    import comfy.cli_args
    import torch
    from safetensors.torch import load_file

    comfy.cli_args.args.fp16_unet = False  # a CPU computes in float32
    latent = {"samples": torch.randn(chosen["batch"], 4, chosen["size"] // 8, chosen["size"] // 8)}
    text = [[torch.zeros(1, 77, 768), {}]]
    numbers = 0
    with measuring.Peaks(measuring.resident) as growth, torch.inference_mode():
        (model,) = comfyui.nodes["UNETLoader"]().load_unet("base.safetensors", "default")
        if what == SAMPLING:
            inputs = (3, 2, 7.5, "euler", "simple", text, text, latent)
            comfyui.nodes["KSampler"]().sample(model, *inputs)
        else:
            path = train(comfyui, model, latent, text, what == CHECKPOINTING, chosen)
            numbers = sum(half.numel() for name, half in load_file(path).items() if "lora_" in name)
    return growth.found() | {"peak": growth.growth["resident"], "numbers": numbers}


def train(comfyui: Any, model: Any, latent: Any, text: Any, checkpointing: bool, chosen: dict[str, Any]) -> str:
    settings = {
        "steps": chosen["steps"], "batch_size": chosen["batch"], "learning_rate": 1e-4, "rank": chosen["rank"],
        "windows": 4, "prediction_type": "auto", "solving_steps": 1, "guidance": 0.0, "points_per_window": 4,
        "gradient_checkpointing": checkpointing, "seed": 0, "filename_prefix": "measured",
    }  # fmt: skip
    node = comfyui.nodes["PeRFlowTrainDelta"]
    lists = {name: [value] for name, value in settings.items()}
    return node.execute(model=[model], latents=[latent], positive=[text], **lists).result[0]


if __name__ == "__main__":
    main()
