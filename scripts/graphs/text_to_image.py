"""Text to image with PeRFlow: SD1.5, SDXL, a merged SD2.1 checkpoint, LoRAs."""

from __future__ import annotations

from collections.abc import Sequence

from . import files
from .drawing import Graph, Node, Socket, graph
from .parts import custom_sampling, decode, ksampler, prompts_and_size, save, sd15_with_delta

SD15_SETTINGS = """**Settings**

| steps | CFG |
|---|---|
| 4 | 4.5 |
| 6 | 6 |
| 8 | 7.5 |
"""


@graph("PeRFlow SD1.5 text to image")
def sd15(g: Graph) -> None:
    g.column(390)
    g.note(f"""## PeRFlow: a picture in four steps

{files.file_list(files.SD15, files.SD15_DELTA)}

Any SD1.5 checkpoint works.

{SD15_SETTINGS}
Sampler `euler`, any scheduler. Negative prompts, LoRAs and ControlNet work as usual. Put LoRAs before or after *Apply
PeRFlow Delta*.
""")
    checkpoint, model = sd15_with_delta(g)
    positive, negative, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 512)
    g.column(330, "3  Four steps")
    samples = ksampler(g, model, positive, negative, latent, steps=4, cfg=4.5)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow")


@graph("PeRFlow SD1.5 all nodes")
def sd15_all_nodes(g: Graph) -> None:
    g.column(390)
    g.note(f"""## PeRFlow with all of its nodes

{files.file_list(files.SD15, files.SD15_DELTA)}

*Window Schedule* lays the official steps, *PeRFlow Sampler* never steps across a window edge, and *Plot Window
Schedule* shows where the steps are.

{SD15_SETTINGS}
""")
    checkpoint, model = sd15_with_delta(g)
    *conditioning, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 512)
    g.column(320, "3  Four steps")
    save(g, plotted_steps(g, checkpoint, model, conditioning, latent, steps=4, cfg=4.5), "PeRFlow-all-nodes")
    g.note(
        """### A plain KSampler works too

The graph *PeRFlow SD1.5 text to image* has one: with sampler `euler`, any scheduler and 4 steps, the model moves the
steps to its time windows by itself and says so.
""",
        title="KSampler",
    )


@graph("PeRFlow SDXL text to image")
def sdxl(g: Graph) -> None:
    g.column(400)
    g.note(
        f"""## PeRFlow SDXL: six steps

{files.file_list(files.SDXL_PERFLOW, files.SDXL)}

PeRFlow's authors publish SDXL with PeRFlow merged in, so *Load Diffusion Model* loads the UNet and **Model Sampling
PeRFlow** sets the sampling. Text encoders and VAE are SDXL's own.

**Settings**: 6 steps or more, CFG 1.5 to 2.5, 1024 px.

**With another SDXL checkpoint**: make a delta once (graph *PeRFlow make a delta*), then use *Apply PeRFlow Delta* on
that checkpoint.
"""
    )
    g.column(380, "1  Model")
    checkpoint = g.add("CheckpointLoaderSimple", title="Text encoders and VAE", ckpt_name=files.SDXL)
    unet = g.add("UNETLoader", unet_name=files.SDXL_PERFLOW)
    model = g.add("PeRFlowModelSampling", tall=240, model=unet["MODEL"])["MODEL"]
    *conditioning, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 1024)
    g.column(320, "3  Six steps")
    save(g, plotted_steps(g, checkpoint, model, conditioning, latent, steps=6, cfg=2.0), "PeRFlow-SDXL")


@graph("PeRFlow SD2.1 merged checkpoint")
def sd21_merged(g: Graph) -> None:
    g.column(400)
    g.note(f"""## A checkpoint with PeRFlow merged in

{files.file_list(files.SD21_PERFLOW, files.SD21_TEXT, files.SD21_VAE)}

Merged weights need no delta, only the sampling of **Model Sampling PeRFlow**. On `auto` it uses what PeRFlow's authors
trained for each architecture: *velocity* for SD2.1, *diff_eps* for SD1.5, *ddim_eps* for SDXL.

**Settings**: 8 steps, CFG 7.5, 768 px.

The sampler is a plain KSampler. Any scheduler works: the model moves the steps to its windows.
""")
    g.column(390, "1  Merged model")
    unet = g.add("UNETLoader", unet_name=files.SD21_PERFLOW)
    model = g.add("PeRFlowModelSampling", tall=240, model=unet["MODEL"])["MODEL"]
    clip = g.add("CLIPLoader", clip_name=files.SD21_TEXT, type="stable_diffusion")["CLIP"]
    vae = g.add("VAELoader", vae_name=files.SD21_VAE)["VAE"]
    positive, negative, latent = prompts_and_size(g, 2, clip, 768)
    g.column(330, "3  Eight steps")
    samples = ksampler(g, model, positive, negative, latent, steps=8, cfg=7.5)
    save(g, decode(g, samples, vae), "PeRFlow-SD21")


@graph("PeRFlow SD1.5 with LoRAs")
def loras(g: Graph) -> None:
    g.column(400)
    g.note(f"""## PeRFlow with community LoRAs

{files.file_list(files.SD15, files.SD15_DELTA, files.ADD_DETAIL, files.BLINDBOX)}

Any SD1.5 LoRA works, at its usual strength, before or after the delta. Both are added to the same weights, so the order
does not matter.

{SD15_SETTINGS}
The second LoRA is bypassed. Select it and press Ctrl+B to switch it on, then put its trigger words into the prompt.
""")
    checkpoint, model = sd15_with_delta(g)
    g.column(340, "2  LoRAs")
    first = g.add(
        "LoraLoader",
        title="More detail",
        model=model,
        clip=checkpoint["CLIP"],
        lora_name=files.ADD_DETAIL,
        strength_model=1.0,
    )
    second = g.add(
        "LoraLoader",
        title="A style",
        bypassed=True,
        model=first["MODEL"],
        clip=first["CLIP"],
        lora_name=files.BLINDBOX,
        strength_model=0.8,
        strength_clip=0.8,
    )
    positive, negative, latent = prompts_and_size(g, 3, second["CLIP"], 512)
    g.column(330, "4  Four steps")
    samples = ksampler(g, second["MODEL"], positive, negative, latent, steps=4, cfg=4.5)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow-LoRA")


def plotted_steps(
    g: Graph, checkpoint: Node, model: Socket, conditioning: Sequence[Socket], latent: Socket, steps: int, cfg: float
) -> Socket:
    """The picture, and its steps in a plot."""
    parts = custom_sampling(g, model, conditioning, cfg)
    sigmas = g.add("PeRFlowWindowSchedule", tall=270, model=model, steps=steps)["SIGMAS"]
    g.column(380, "4  Sample, decode, and see the steps")
    samples = g.add("SamplerCustomAdvanced", **parts, sigmas=sigmas, latent_image=latent)["output"]
    image = decode(g, samples, checkpoint["VAE"])
    g.add("PeRFlowSchedulePlot", tall=340, model=model, sigmas=sigmas)
    return image
