"""Flow-matching models: a delta is trained, and used with the models that most people have."""

from __future__ import annotations

from typing import Any

from . import files
from .deltas import loss_by_step, loss_by_window
from .drawing import LONG_HEAD, Graph, Socket, graph
from .parts import LIGHTHOUSE, UNWANTED, decode, empty_latent, ksampler, prompts, save

TRAINING = "18 Train a delta of a flow model"
MODEL_AND_DELTA = "1  Model and your delta (train it first)"
SD35_PREFIX = "my-perflow-sd3.5"
FOLDER = "my-pictures"
AURA, GUIDANCE_4 = "the three loaders and ModelSamplingAuraFlow", "Set *guidance* and the CFG of group 5 to 4."
NO_NEGATIVE = "The negative prompt has no effect there; a delta trained with *guidance* 0 takes the model's own CFG."
SD3_LATENT = "EmptySD3LatentImage"


@graph(TRAINING)
def train(g: Graph) -> None:
    g.head(
        f"""## Train a delta of a flow model

{files.file_list(files.SD35)}

Nobody publishes PeRFlow for flow models (SD3.5, Z-Image, Flux, Qwen-Image, Wan and others): you train your own.
*Train PeRFlow Delta* lets the model learn to make its pictures in four steps. Three 4-step pictures of one seed then
show the effect: without the delta at CFG 1 and at CFG 4.5 (twice the time), and with it at CFG 1.

Run it. It takes about as long as 150 pictures of 25 steps, and for this model about 8 GB of GPU memory (computed, not
measured, for one picture of 1024 x 1024, which is as much as four of 512 x 512). The model first draws 16 pictures of
the prompt itself, and then learns from them. The node shows a four-step picture every 25 steps. If you interrupt it,
it saves what was trained. If you run the graph again, the training is not repeated while its inputs stay the same. In
other graphs, use the file with *Apply PeRFlow Delta* (press R to see it in the list).

**Your own pictures** (ten are enough for a try): put them in the folder `input/{FOLDER}` of ComfyUI and press R.
Remove the bypass of the three nodes in group 2b, and connect LATENT of *VAE Encode* to *latents* of *Train PeRFlow
Delta*, in place of the empty latents. Write into the positive prompt what the pictures have in common. If you have a
text file for each picture, use Load Image-Text (from Folder) and Make Training Dataset instead: they give `latents`
and `positive`.

200 steps show that it works; a good delta takes many thousands of steps and more varied pictures. Add prompts, train
at the size you will use, and continue a file with *resume_from*. If memory runs out, turn on *offloading*.

**guidance** 4.5 is trained into the delta, so that CFG 1 is enough, in half the time; the negative prompt then has no
effect. With *guidance* 0 you sample with CFG and a negative prompt, as without the delta.

**Another model**: put its loaders in place of *Load Checkpoint*. If your graphs have ModelSamplingAuraFlow or
ModelSamplingSD3, the training needs it too, with the same shift. Use the CFG of your graphs as *guidance*.
We have tried this on small models only.
""",
        1116,  # the three columns below it
    )
    g.column(350, "1  Model and prompts")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SD35)
    base, vae = checkpoint["MODEL"], checkpoint["VAE"]
    positive, negative = prompts(g, checkpoint["CLIP"])
    empty = g.add("CLIPTextEncode", title="Empty prompt", tall=100, clip=checkpoint["CLIP"], text="")["CONDITIONING"]
    g.column(300, "2a  The model draws the pictures")
    nothing = empty_latent(g, 512, SD3_LATENT, batch_size=16)
    g.group("2b  Or your own pictures")
    loaded = g.add("LoadImageDataSetFromFolder", bypassed=True, folder=files.Own(FOLDER))["images"]
    size: dict[str, Any] = {"width": 512, "height": 512, "crop": "center"}
    scaled = g.add("ImageScale", bypassed=True, image=loaded, upscale_method="lanczos", **size)["IMAGE"]
    g.add("VAEEncode", bypassed=True, pixels=scaled, vae=vae)
    g.column(370, "3  Train")
    inputs: dict[str, Any] = {"model": base, "latents": nothing, "positive": positive, "negative": empty}
    how: dict[str, Any] = {"steps": 200, "learning_rate": 0.0005, "guidance": 4.5, "filename_prefix": SD35_PREFIX}
    trained = g.add("PeRFlowTrainDelta", tall=760, **inputs, **how)
    latent = None
    for group, name, sampled, cfg in (
        ("4  Without, CFG 1", "without", base, 1.0),
        ("5  Without, CFG 4.5", "without-cfg", base, 4.5),
        ("6  With the delta, CFG 1", "with", trained["accelerated"], 1.0),
    ):
        g.column(285, group)
        latent = latent or empty_latent(g, 512, SD3_LATENT)
        image = decode(g, ksampler(g, sampled, positive, negative, latent, steps=4, cfg=cfg), vae)
        g.add("SaveImage", tall=340, images=image, filename_prefix=f"{SD35_PREFIX}-{name}")
        if name == "without-cfg":
            loss_by_window(g, 7, trained)
    loss_by_step(g, 8, trained, SD35_PREFIX)


@graph("19 SD3.5 four steps", new_seeds=True)
def sd35(g: Graph) -> None:
    g.head(
        f"""## SD3.5 medium: four steps

{files.file_list(files.SD35)}

{train_first(SD35_PREFIX, "It is made for this model: run it as it is, for pictures of 512 x 512.")}

**Settings**: `euler`, any scheduler, 4 or 8 steps. CFG 1. {NO_NEGATIVE}
""",
        LONG_HEAD,
    )
    g.column(390, MODEL_AND_DELTA)
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SD35)
    model = delta(g, checkpoint["MODEL"], SD35_PREFIX)
    g.column(400, "2  Prompts and size")
    conditioning = prompts(g, checkpoint["CLIP"])
    four_steps(g, model, conditioning, empty_latent(g, 512, SD3_LATENT), checkpoint["VAE"], 1.0, "PeRFlow-SD3.5")


@graph("20 Z-Image four steps", new_seeds=True)
def z_image(g: Graph) -> None:
    prefix = "my-perflow-z-image"
    g.head(
        f"""## Z-Image: four steps

{files.file_list(files.Z_IMAGE, files.Z_IMAGE_TEXT, files.FLUX_VAE)}

{train_first(prefix, exchanged(prefix, AURA, GUIDANCE_4))}

**Settings**: `euler`, any scheduler, 4 or 8 steps. CFG 1. {NO_NEGATIVE} *shift* as in the training, 3 here.
Z-Image Turbo takes few steps by itself and needs no delta.
""",
        LONG_HEAD,
    )
    g.column(390, MODEL_AND_DELTA)
    model = g.add("UNETLoader", unet_name=files.Z_IMAGE)["MODEL"]
    model = delta(g, g.add("ModelSamplingAuraFlow", model=model, shift=3.0)["MODEL"], prefix)
    g.column(400, "2  Prompts and size")
    clip = g.add("CLIPLoader", clip_name=files.Z_IMAGE_TEXT, type="lumina2")["CLIP"]
    conditioning = prompts(g, clip)
    four_steps(g, model, conditioning, empty_latent(g, 1024, SD3_LATENT), files.FLUX_VAE, 1.0, "PeRFlow-Z-Image")


@graph("21 Qwen-Image four steps", new_seeds=True)
def qwen_image(g: Graph) -> None:
    prefix = "my-perflow-qwen-image"
    g.head(
        f"""## Qwen-Image: four steps

{files.file_list(files.QWEN_IMAGE, files.QWEN_IMAGE_TEXT, files.QWEN_IMAGE_VAE)}

{train_first(prefix, exchanged(prefix, AURA, GUIDANCE_4))}

**Settings**: `euler`, any scheduler, 4 or 8 steps. CFG 1. {NO_NEGATIVE} *shift* as in the training, 3.1
here.
""",
        LONG_HEAD,
    )
    g.column(390, MODEL_AND_DELTA)
    model = g.add("UNETLoader", unet_name=files.QWEN_IMAGE)["MODEL"]
    model = delta(g, g.add("ModelSamplingAuraFlow", model=model, shift=3.1)["MODEL"], prefix)
    g.column(400, "2  Prompts and size")
    clip = g.add("CLIPLoader", clip_name=files.QWEN_IMAGE_TEXT, type="qwen_image")["CLIP"]
    conditioning = prompts(g, clip)
    four_steps(
        g, model, conditioning, empty_latent(g, 1328, SD3_LATENT), files.QWEN_IMAGE_VAE, 1.0, "PeRFlow-Qwen-Image"
    )


@graph("22 Flux four steps", new_seeds=True)
def flux(g: Graph) -> None:
    prefix = "my-perflow-flux"
    g.head(
        f"""## Flux: four steps

{files.file_list(files.FLUX, files.FLUX_CLIP_L, files.FLUX_T5, files.FLUX_VAE)}

{train_first(prefix, exchanged(prefix, "the loaders and FluxGuidance", "Set *guidance* to 0 and bypass group 5."))}

**Settings**: `euler`, any scheduler, 4 or 8 steps, CFG 1, *FluxGuidance* as in the training: 3.5 here; after a training
with a range (*guidance_up_to*), any value in it.
""",
        LONG_HEAD,
    )
    g.column(390, MODEL_AND_DELTA)
    texts: dict[str, Any] = {"clip_name1": files.FLUX_CLIP_L, "clip_name2": files.FLUX_T5, "type": "flux"}
    clip = g.add("DualCLIPLoader", **texts)["CLIP"]
    model = delta(g, g.add("UNETLoader", unet_name=files.FLUX)["MODEL"], prefix)
    g.column(400, "2  Prompt, guidance and size")
    prompt = g.add("CLIPTextEncode", title="Positive prompt", tall=130, clip=clip, text=LIGHTHOUSE)["CONDITIONING"]
    positive = g.add("FluxGuidance", conditioning=prompt, guidance=3.5)["CONDITIONING"]
    none = g.add("ConditioningZeroOut", title="No negative prompt at CFG 1", conditioning=prompt)["CONDITIONING"]
    four_steps(g, model, (positive, none), empty_latent(g, 1024, SD3_LATENT), files.FLUX_VAE, 1.0, "PeRFlow-Flux")


@graph("23 Wan 2.2 video in four steps")
def wan(g: Graph) -> None:
    high, low = "my-perflow-wan2.2-high", "my-perflow-wan2.2-low"
    edges = {high: "1, 0.94, 0.875", low: "0.875, 0.6, 0"}
    g.column(440)
    g.note(f"""## Wan 2.2: a video in four steps, two of each expert

{files.file_list(files.WAN_HIGH, files.WAN_LOW, files.WAN_TEXT, files.WAN_VAE)}

Wan 2.2 has two models: one for much noise, down to sigma 0.875, and one for the rest. Each gets its own delta and its
own two windows; *Window Schedule* gives the steps of its part.

**The deltas have to be trained first**, since nobody publishes any. Until then *Apply PeRFlow Delta* is bypassed, and
the video is what the models themselves make in four steps: unfinished. The graph *{TRAINING}* shows how. Use its
*Train PeRFlow Delta* twice, on each of the two models after its ModelSamplingSD3, with *edges* `{edges[high]}` and
`{edges[low]}` and *filename_prefix* `{high}` and `{low}`. Both need videos, encoded by this VAE (Load Video, Get Video
Components, VAE Encode): one expert alone cannot make them. Then press R and remove the two bypasses (Ctrl+B).

*Model Sampling PeRFlow* sets the windows without a delta. A trained file says its windows itself, and *edges* in
*Apply PeRFlow Delta* would override them.

**Settings**: `euler`, CFG and shift as in the training. In *Sample: high noise* add_noise is on, in *Sample: low
noise* off. We have tried this on small models only.
""")
    g.column(390, "1  Text encoder and VAE")
    clip = g.add("CLIPLoader", clip_name=files.WAN_TEXT, type="wan")["CLIP"]
    vae = g.add("VAELoader", vae_name=files.WAN_VAE)["VAE"]
    g.group("2  Prompts and size")
    text = "a fox runs through a snowy forest at sunrise, the camera follows it"
    positive, negative = prompts(g, clip, text, f"{UNWANTED}, static")
    latent = g.add("EmptyHunyuanLatentVideo", width=640, height=640, length=81)["LATENT"]
    sampler = g.add("KSamplerSelect", sampler_name="euler")["SAMPLER"]
    parts = {"positive": positive, "negative": negative, "sampler": sampler, "cfg": 3.5}
    for column, name, file, prefix in ((3, "high noise", files.WAN_HIGH, high), (4, "low noise", files.WAN_LOW, low)):
        g.column(390, f"{column}  {name.capitalize()} (train the delta first)")
        model = g.add("UNETLoader", unet_name=file)["MODEL"]
        model = g.add("ModelSamplingSD3", model=model, shift=5.0)["MODEL"]
        model = g.add("PeRFlowModelSampling", tall=270, model=model, windows=2, edges=edges[prefix])["MODEL"]
        model = delta(g, model, prefix)
        sigmas = g.add("PeRFlowWindowSchedule", tall=290, model=model, steps=2)["SIGMAS"]
        how: dict[str, Any] = {"add_noise": column == 3, "noise_seed": 1234 if column == 3 else 0, **parts}
        sampled = g.add(
            "SamplerCustom", title=f"Sample: {name}", model=model, sigmas=sigmas, latent_image=latent, **how
        )
        latent = sampled["output"]
    g.column(500, "5  Video")
    video = g.add("CreateVideo", images=decode(g, latent, vae), fps=16.0)["VIDEO"]
    g.add("SaveVideo", tall=560, video=video, filename_prefix="video/PeRFlow-Wan2.2")


def train_first(prefix: str, how: str) -> str:
    return f"""**The delta has to be trained first**, since nobody publishes one: with the graph *{TRAINING}*. {how}
Then press R and remove the bypass of *Apply PeRFlow Delta* (Ctrl+B); it holds the name of the first file that the
training writes, `{files.trained(prefix)}`. Until then the picture is what the model itself makes in four steps:
unfinished."""


def exchanged(prefix: str, what: str, also: str = "") -> str:
    how = (
        f"There, put {what} of this graph in place of *Load Checkpoint*, write `{prefix}` as *filename_prefix*, and "
        "train at the size of this graph."
    )
    return f"{how} {also}".strip()


def delta(g: Graph, model: Socket, prefix: str) -> Socket:
    """Bypassed: the file is there after its training."""
    name = files.trained(prefix)
    return g.add("PeRFlowApplyDelta", tall=310, bypassed=True, model=model, delta_name=name)["MODEL"]


def four_steps(
    g: Graph,
    model: Socket,
    conditioning: tuple[Socket, Socket],
    latent: Socket,
    vae: Socket | files.File,
    cfg: float,
    name: str,
) -> None:
    """In columns of their own, with the VAE's loader where it has one of its own."""
    g.column(330, "3  Four steps")
    decoder = g.add("VAELoader", vae_name=vae)["VAE"] if isinstance(vae, files.File) else vae
    samples = ksampler(g, model, *conditioning, latent, steps=4, cfg=cfg)
    save(g, decode(g, samples, decoder), name, beside=True)
