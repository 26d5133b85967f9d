"""What an edit by Prompt-to-Prompt costs beside the same two prompts unedited, as ratios measured side by side.

    python benchmarks/prompt_to_prompt.py [--small] [--pairs 9] [--cfg 1] [--pixels N]

Source and edit are one batch of two, sampled in four steps by stock euler: SD1.5's real size at 512 pixels, or with
--small a UNet of the demo's size (168 M weights) at 256 pixels. At CFG 1 half of the rows are edited, above it a
quarter. Runs alternate, the order within a pair too; printed is the median of the ratios of the pairs.
"""

import argparse
from pathlib import Path

import full_size
import measuring

SOURCE, EDITED = "a lighthouse on a cliff at sunset", "a castle on a cliff at sunset"
EDIT = {"edit": "auto", "cross_steps": 0.8, "self_steps": 0.4, "emphasis": "", "blend_threshold": 0.3}


def main() -> None:
    measuring.enter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small UNet at 256 pixels")
    parser.add_argument("--pairs", type=int, default=9, help="how often each is run (default: %(default)s)")
    parser.add_argument("--cfg", type=float, default=1.0, help="guidance (default: %(default)s)")
    parser.add_argument("--pixels", type=int, help="of a picture's side (default: 512, small 256)")
    options = parser.parse_args()
    with measuring.small_comfyui() as (comfyui, folder):
        print("\nmaking a UNet ...", flush=True)
        pixels = options.pixels or (256 if options.small else 512)
        measuring.compare(make_runs(comfyui, folder, options.small, options.cfg, pixels // 8), options.pairs)


def make_runs(comfyui, folder: Path, small: bool, cfg: float, size: int) -> dict[str, measuring.Run]:
    """Four model calls each, on one UNet in memory; size of the latent's side."""
    import comfy.samplers
    import comfy.sd
    import torch
    from trial import small_models, small_text_models
    from trial.edited_prompts import unedited
    from trial.small_models.unets import SD15_DRAWN

    preset = SD15_DRAWN if small else full_size.sd15(small)
    base = comfy.sd.load_diffusion_model(str(small_models.make_unet(folder / "unet.safetensors", preset)))
    clip = small_text_models.clip("SD1.5")
    noise = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    negative = [[torch.zeros(1, 77, 768), {}]]
    euler = comfy.samplers.sampler_object("euler")
    simple = comfy.samplers.calculate_sigmas(base.get_model_object("model_sampling"), "simple", 4)

    def edited(blend: str):
        latent = {"samples": torch.zeros(1, 4, size, size)}
        node = comfyui.nodes["PeRFlowPromptToPrompt"]
        return node.execute(base, clip, latent, SOURCE, EDITED, blend=blend, **EDIT).result

    def run(model, positive) -> measuring.Run:
        return lambda: measuring.sample(model, noise, cfg, euler, simple, positive, negative)

    model, positive, _ = edited("")
    return {
        "unedited": run(base, unedited(positive)),
        "unedited again": run(base, unedited(positive)),
        "edit": run(model, positive),
        "edit with LocalBlend": run(*edited("lighthouse, castle")[:2]),
    }


if __name__ == "__main__":
    main()
