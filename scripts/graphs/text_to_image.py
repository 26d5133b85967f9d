"""Text to image with PeRFlow: SD1.5, SDXL, a merged SD2.1 checkpoint, LoRAs."""

from __future__ import annotations

from demo_options import SMALL

from . import files
from .drawing import LONG_HEAD, SHORT_HEAD, Graph, graph
from .parts import custom_sampling, decode, empty_latent, ksampler, prompts, prompts_and_size, save, sd15_with_delta

SD15_SETTINGS = "**Settings**: 4 steps with CFG 4.5, 6 with CFG 6, or 8 with CFG 7.5. Sampler `euler`, any scheduler."


@graph("01 SD1.5 text to image", new_seeds=True)
def sd15(g: Graph) -> None:
    g.head(f"""## PeRFlow: a picture in four steps

{files.file_list(files.SD15, files.SD15_DELTA)}

Any SD1.5 checkpoint works. Press R when the files are there.

{SD15_SETTINGS}

Negative prompts, LoRAs and ControlNet work as usual. Put LoRAs before or after *Apply PeRFlow Delta*.
""")
    checkpoint, model = sd15_with_delta(g)
    positive, negative, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 512)
    g.column(330, "3  Four steps")
    samples = ksampler(g, model, positive, negative, latent, steps=4, cfg=4.5)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow", beside=True)


@graph("17 SD1.5 all nodes", new_seeds=True)
def sd15_all_nodes(g: Graph) -> None:
    g.head(
        f"""## PeRFlow with all of its nodes

{files.file_list(files.SD15, files.SD15_DELTA)}

*Window Schedule* lays the official steps, *PeRFlow Sampler* never steps across a window edge, and *Plot Window
Schedule* shows where the steps are. A plain KSampler works too, as in *01 SD1.5 text to image*: the model moves
its steps to the windows.

{SD15_SETTINGS}
""",
        LONG_HEAD,
    )
    checkpoint, model = sd15_with_delta(g)
    *conditioning, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 512)
    g.group("5  See the steps")
    plot = g.add("PeRFlowSchedulePlot", tall=340, model=model)
    g.column(320, "3  Four steps")
    parts = custom_sampling(g, model, conditioning, cfg=4.5)
    sigmas = g.add("PeRFlowWindowSchedule", tall=270, model=model, steps=4)["SIGMAS"]
    g.connect(plot, sigmas=sigmas)
    g.column(400, "4  Sample and decode")
    samples = g.add("SamplerCustomAdvanced", **parts, sigmas=sigmas, latent_image=latent)["output"]
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow-all-nodes")


@graph("02 SDXL text to image", new_seeds=True)
def sdxl(g: Graph) -> None:
    g.head(f"""## PeRFlow SDXL: six steps

{files.file_list(files.SDXL_PERFLOW, files.SDXL)}

PeRFlow's authors publish SDXL with PeRFlow merged in, so *Load Diffusion Model* loads the UNet and **Model Sampling
PeRFlow** sets the sampling. Text encoders and VAE are SDXL's own.

**Settings**: 6 steps or more, CFG 1.5 to 2.5, 1024 px. Sampler `euler`, any scheduler.

**With another SDXL checkpoint**: make a delta once (graph *26 Make an SDXL delta*), then use *Apply PeRFlow Delta* on
that checkpoint.
""")
    g.column(380, "1  Model")
    checkpoint = g.add("CheckpointLoaderSimple", title="Text encoders and VAE", ckpt_name=files.SDXL)
    unet = g.add("UNETLoader", unet_name=files.SDXL_PERFLOW)
    model = g.add("PeRFlowModelSampling", tall=240, model=unet["MODEL"])["MODEL"]
    positive, negative, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 1024)
    g.column(330, "3  Six steps")
    samples = ksampler(g, model, positive, negative, latent, steps=6, cfg=2.0)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow-SDXL", beside=True)


@graph("03 SD2.1 merged checkpoint", new_seeds=True)
def sd21_merged(g: Graph) -> None:
    g.head(
        f"""## A checkpoint with PeRFlow merged in

{files.file_list(files.SD21_PERFLOW, files.SD21_TEXT, files.SD21_VAE)}

Merged weights need no delta, only the sampling of **Model Sampling PeRFlow**. On `auto` it uses what PeRFlow's authors
trained for each architecture: *velocity* for SD2.1, *diff_eps* for SD1.5, *ddim_eps* for SDXL.

**Settings**: 8 steps, CFG 7.5, 768 px.

The sampler is a plain KSampler. Any scheduler works: the model moves the steps to its windows.
""",
        LONG_HEAD,
    )
    g.column(390, "1  Merged model")
    unet = g.add("UNETLoader", unet_name=files.SD21_PERFLOW)
    model = g.add("PeRFlowModelSampling", tall=240, model=unet["MODEL"])["MODEL"]
    g.column(400, "2  Prompts and size")
    clip = g.add("CLIPLoader", clip_name=files.SD21_TEXT, type="stable_diffusion")["CLIP"]
    positive, negative = prompts(g, clip)
    latent = empty_latent(g, 768)
    g.column(330, "3  Eight steps")
    vae = g.add("VAELoader", vae_name=files.SD21_VAE)["VAE"]
    samples = ksampler(g, model, positive, negative, latent, steps=8, cfg=7.5)
    save(g, decode(g, samples, vae), "PeRFlow-SD21", beside=True)


@graph("04 Small model without downloads", new_seeds=True)
def small_model(g: Graph) -> None:
    g.head("""## Try PeRFlow without a download

The repository brings a small model that draws scenes of 128 x 128 pixels. Go to the folder of ComfyUI, and make its two
files with the Python of your ComfyUI (15 s, 925 MB):

`python custom_nodes/perflow/scripts/install_small_model.py models`

They are `models/checkpoints/drawn-scenes.safetensors` and `models/perflow/drawn-scenes-perflow.safetensors`. Then
press R, and run this graph. The script comes with `git clone`, not with what the ComfyUI Manager installs.

**Words** that it knows: lighthouse, house, castle, windmill, tree, boat, balloon; a cliff, hill, beach, field, the
mountains, the sea; dawn, noon, sunset, night; clear, cloudy, rainy, snowy; a colour; small, large; on the left, in the
middle, on the right.

**Settings**: 4 steps or more, CFG 2. Its base model needs 8 steps. The same words work in the negative prompt, which
keeps snow away here.
""")
    g.column(390, "1  Model and delta")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SMALL_CHECKPOINT)
    model = g.add("PeRFlowApplyDelta", tall=300, model=checkpoint["MODEL"], delta_name=files.SMALL_DELTA)["MODEL"]
    g.column(400, "2  Prompts and size")
    positive, negative = prompts(g, checkpoint["CLIP"], SMALL["prompt"], SMALL["negative"])
    latent = empty_latent(g, int(SMALL["size"]))
    g.column(330, "3  Four steps")
    samples = ksampler(g, model, positive, negative, latent, steps=4, cfg=SMALL["cfg"])
    image = decode(g, samples, checkpoint["VAE"])
    scaled = g.add("ImageScaleBy", title="Four times as large", image=image, upscale_method="lanczos", scale_by=4.0)
    save(g, scaled["IMAGE"], "PeRFlow-small-model", beside=True)


@graph("06 SD1.5 with LoRAs", new_seeds=True)
def loras(g: Graph) -> None:
    g.head(
        f"""## PeRFlow with community LoRAs

{files.file_list(files.SD15, files.SD15_DELTA, files.ADD_DETAIL, files.BLINDBOX)}

Any SD1.5 LoRA works, at its usual strength, before or after the delta. Both are added to the same weights, so the order
does not matter.

{SD15_SETTINGS}
The second LoRA is bypassed. Select it and press Ctrl+B to switch it on, then put its trigger words into the prompt.
""",
        SHORT_HEAD,
    )
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
    g.column(400, "4  Four steps")
    samples = ksampler(g, second["MODEL"], positive, negative, latent, steps=4, cfg=4.5)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow-LoRA")
