"""Phased Consistency Models: LoRAs for SD1.5, SDXL and SD3."""

from __future__ import annotations

from . import files
from .drawing import Graph, Socket, graph
from .parts import custom_sampling, decode, prompts_and_size, save

NAME_IS_STEPS = "The number in a file's name is the number of steps to take."


@graph("32 PCM SD1.5", new_seeds=True)
def sd15(g: Graph) -> None:
    g.head(f"""## PCM SD1.5: four steps

{files.file_list(files.SD15, files.PCM_SD15)}

{NAME_IS_STEPS}

| LoRA | steps | CFG | sampler |
|---|---|---|---|
| smallcfg | 2, 4, 8, 16 | 1 to 2 | euler |
| normalcfg | 4, 8, 16 | 2.5 to 6 | euler |
| lcmlike | 4 | 1 | lcm |

*grid* in **Phase Schedule (PCM)**: `trailing` is what PCM's code samples with (999, 749, 499, 249), `training_edges`
is where the phases ended in training (999, 739, 499, 239).
""")
    lora_and_prompts(g, files.SD15, files.PCM_SD15, size=512, cfg=1.5, steps=4, name="PCM-SD15")


@graph("33 PCM SDXL", new_seeds=True)
def sdxl(g: Graph) -> None:
    g.head(f"""## PCM SDXL: four steps

{files.file_list(files.SDXL, files.PCM_SDXL)}

{NAME_IS_STEPS} Use CFG 1 to 2 with smallcfg files and 2.5 to 6 with normalcfg files.

On SDXL the grid of PCM's sampling code and the phases of training are the same: 999, 749, 499, 249.
""")
    lora_and_prompts(g, files.SDXL, files.PCM_SDXL, size=1024, cfg=1.5, steps=4, name="PCM-SDXL")


@graph("34 PCM SD3 deterministic", new_seeds=True)
def sd3_deterministic(g: Graph) -> None:
    g.head(f"""## PCM SD3: four steps, deterministic

{files.file_list(files.SD3, files.PCM_SD3)}

**shift** in *ModelSamplingSD3* must be the one in the file's name: 3 here, 1 for the `shift1` files.

**Settings**: 4 steps, CFG 1.2, `euler`. **Phase Schedule (PCM)** gives the official steps, 1000, 905, 750, 513. No
stock scheduler gives these.
""")
    sd3(g, files.PCM_SD3, "euler", "PCM-SD3")


@graph("35 PCM SD3 stochastic", new_seeds=True)
def sd3_stochastic(g: Graph) -> None:
    g.head(f"""## PCM SD3: four steps, stochastic

{files.file_list(files.SD3, files.PCM_SD3_STOCHASTIC)}

Each step goes to a clean picture and adds new noise for the next step. ComfyUI's own `lcm` does that on SD3.

**Settings**: 4 steps, CFG 1.2, shift 3. This file also works with other step counts.
""")
    sd3(g, files.PCM_SD3_STOCHASTIC, "lcm", "PCM-SD3-stochastic")


def sd3(g: Graph, lora: files.File, sampler: str, name: str) -> None:
    g.column(390, "1  Model, LoRA and shift")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SD3)
    loaded = g.add("LoraLoaderModelOnly", model=checkpoint["MODEL"], lora_name=lora)["MODEL"]
    model = g.add("ModelSamplingSD3", model=loaded, shift=3.0)["MODEL"]
    latent = "EmptySD3LatentImage"
    phases(g, model, checkpoint["CLIP"], checkpoint["VAE"], latent, 1024, cfg=1.2, steps=4, sampler=sampler, name=name)


def lora_and_prompts(
    g: Graph, base: files.File, lora: files.File, *, size: int, cfg: float, steps: int, name: str
) -> None:
    g.column(390, "1  Model and LoRA")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=base)
    model = g.add("LoraLoaderModelOnly", model=checkpoint["MODEL"], lora_name=lora)["MODEL"]
    latent = "EmptyLatentImage"
    phases(
        g, model, checkpoint["CLIP"], checkpoint["VAE"], latent, size, cfg=cfg, steps=steps, sampler="euler", name=name
    )


def phases(
    g: Graph,
    model: Socket,
    clip: Socket,
    vae: Socket,
    latent_kind: str,
    size: int,
    *,
    cfg: float,
    steps: int,
    sampler: str,
    name: str,
) -> None:
    *conditioning, latent = prompts_and_size(g, 2, clip, size, kind=latent_kind)
    g.column(330, "3  Four steps")
    parts = custom_sampling(g, model, conditioning, cfg, sampler)
    sigmas = g.add("PCMPhaseSchedule", tall=380, model=model, steps=steps)["SIGMAS"]
    g.column(400, "4  Sample and decode")
    samples = g.add("SamplerCustomAdvanced", **parts, sigmas=sigmas, latent_image=latent)["output"]
    save(g, decode(g, samples, vae), name)
