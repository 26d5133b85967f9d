"""InstaFlow and 2-Rectified-Flow: one window from noise to picture."""

from __future__ import annotations

from . import files
from .drawing import Graph, Socket, graph
from .parts import LIGHTHOUSE, decode, empty_latent, ksampler, prompts, prompts_and_size, save


@graph("27 InstaFlow one step", new_seeds=True)
def one_step(g: Graph) -> None:
    g.head(f"""## InstaFlow: a picture in one step

{files.file_list(files.INSTAFLOW, files.SD15)}

**Model Sampling InstaFlow** changes the sign of what the UNet predicts, which is opposite to that of SD3 and Flux, and
spaces the steps of any scheduler evenly.

**Settings**: 1 step, CFG 1, 512 px. CFG 1 means no guidance, so the negative prompt has no effect.

InstaFlow's own demo looks better than the file alone: it adds the difference between dreamshaper and SD1.5 to the UNet
and uses dreamshaper's text encoder and VAE. You can do the same with *ModelMergeSubtract* and *ModelMergeAdd*.
""")
    model, clip, vae = rectified_model(g, files.INSTAFLOW)
    positive, negative, latent = prompts_and_size(g, 2, clip, 512)
    g.column(330, "3  One step")
    samples = ksampler(g, model, positive, negative, latent, steps=1, cfg=1.0)
    save(g, decode(g, samples, vae), "InstaFlow", beside=True)


@graph("28 InstaFlow ControlNet", new_seeds=True)
def controlnet(g: Graph) -> None:
    g.head(f"""## InstaFlow with ControlNet

{files.file_list(files.INSTAFLOW, files.SD15, files.CANNY)}

SD1.5's ControlNets work on InstaFlow without changes. In the one step both the ControlNet and the UNet get timestep
1000.

**Other ControlNets**: choose the depth or openpose file in *Load ControlNet Model*, bypass *Canny* (Ctrl+B), and load a
depth map or a skeleton.

**Settings**: 1 step, CFG 1, 512 px.
""")
    model, clip, vae = rectified_model(g, files.INSTAFLOW)
    positive, negative, latent = prompts_and_size(g, 2, clip, 512)
    g.column(340, "3  Control picture")
    image = g.add("LoadImage", tall=340, image="example.png")["IMAGE"]
    edges = g.add("Canny", image=image)["IMAGE"]
    control = g.add("ControlNetLoader", control_net_name=files.CANNY)["CONTROL_NET"]
    applied = g.add("ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=control, image=edges)
    g.column(400, "4  One step")
    samples = ksampler(g, model, applied["positive"], applied["negative"], latent, steps=1, cfg=1.0)
    save(g, decode(g, samples, vae), "InstaFlow-ControlNet")


@graph("29 InstaFlow then SDXL refiner", new_seeds=True)
def with_sdxl_refiner(g: Graph) -> None:
    g.head(f"""## InstaFlow in one step, then SDXL's refiner to 1024

{files.file_list(files.INSTAFLOW, files.SD15, files.SDXL_REFINER)}

The picture is scaled to 1024, and SDXL's refiner works on it, as in InstaFlow's demo.

**Settings of the refiner**: `euler` with `ddim_uniform`, 15 steps at denoise 0.3 (the last 15 of 50), CFG 5, aesthetic
score 6 for the positive and 2.5 for the empty negative prompt.
""")
    model, clip, vae = rectified_model(g, files.INSTAFLOW)
    positive, negative, latent = prompts_and_size(g, 2, clip, 512)
    g.column(330, "3  One step, 512")
    first = ksampler(g, model, positive, negative, latent, steps=1, cfg=1.0)
    image = decode(g, first, vae)
    g.add("SaveImage", tall=330, images=image, filename_prefix="InstaFlow-512")
    g.column(400, "4  SDXL refiner and its prompts")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SDXL_REFINER)
    wanted = refiner_prompt(g, checkpoint["CLIP"], "Positive prompt", LIGHTHOUSE, 6.0)
    unwanted = refiner_prompt(g, checkpoint["CLIP"], "Negative prompt", "", 2.5)
    scaled = g.add("ImageScale", image=image, upscale_method="bilinear", width=1024, height=1024)["IMAGE"]
    start = g.add("VAEEncode", pixels=scaled, vae=checkpoint["VAE"])["LATENT"]
    g.column(400, "5  Refine at 1024")
    samples = ksampler(
        g, checkpoint["MODEL"], wanted, unwanted, start, steps=15, cfg=5.0, scheduler="ddim_uniform", denoise=0.3
    )
    save(g, decode(g, samples, checkpoint["VAE"]), "InstaFlow-refined")


@graph("31 2-Rectified-Flow eight steps", new_seeds=True)
def two_rectified_flow(g: Graph) -> None:
    g.head(f"""## 2-Rectified-Flow: eight steps with guidance

{files.file_list(files.TWO_RECTIFIED_FLOW, files.SD15)}

InstaFlow was distilled from this model. It takes any number of steps: 2 to 8 are rough to good, and the official
example takes 25.

**Settings**: 8 steps, CFG 1 to 2 (1.5 here), 512 px. The negative prompt works when CFG is above 1.

You can use any sampler and scheduler; the official code uses `euler`. **Model Sampling InstaFlow** spaces the steps
evenly.
""")
    model, clip, vae = rectified_model(g, files.TWO_RECTIFIED_FLOW)
    positive, negative, latent = prompts_and_size(g, 2, clip, 512)
    g.column(330, "3  Eight steps")
    samples = ksampler(g, model, positive, negative, latent, steps=8, cfg=1.5)
    save(g, decode(g, samples, vae), "2-Rectified-Flow", beside=True)


@graph("30 InstaFlow film")
def interpolation(g: Graph) -> None:
    frames = 16
    g.head(f"""## A short film between two seeds

{files.file_list(files.INSTAFLOW, files.SD15)}

**Interpolated Noise** goes from the noise of one seed to that of another along the great circle, so the noise of every
frame has the usual strength. With one-step weights each frame is one model call.

*frames* there and *batch_size* in *Empty Latent Image* must be equal. The first and the last frame are the pictures of
the two seeds.

If the memory is too small, use fewer frames or a smaller picture.
""")
    model, clip, vae = rectified_model(g, files.INSTAFLOW)
    g.column(400, "2  Prompt and size")
    positive, negative = prompts(g, clip)
    latent = empty_latent(g, 512, batch_size=frames)
    g.column(330, "3  One step a frame")
    noise = g.add("InstaFlowNoise", tall=180, seed_from=1234, seed_to=5678, frames=frames)["NOISE"]
    guider = g.add("CFGGuider", model=model, positive=positive, negative=negative, cfg=1.0)["GUIDER"]
    solver = g.add("KSamplerSelect", sampler_name="euler")["SAMPLER"]
    sigmas = g.add("BasicScheduler", model=model, scheduler="simple", steps=1)["SIGMAS"]
    g.column(400, "4  Sample and decode")
    samples = g.add(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=solver, sigmas=sigmas, latent_image=latent
    )["output"]
    image = decode(g, samples, vae)
    g.add("SaveAnimatedWEBP", tall=580, images=image, filename_prefix="InstaFlow-film", fps=8.0, lossless=False)


def rectified_model(g: Graph, unet: files.File) -> tuple[Socket, Socket, Socket]:
    """The UNet with its sampling, and SD1.5's text encoder and VAE."""
    g.column(390, "1  Model")
    checkpoint = g.add("CheckpointLoaderSimple", title="Text encoder and VAE", ckpt_name=files.SD15)
    loaded = g.add("UNETLoader", unet_name=unet)["MODEL"]
    model = g.add("InstaFlowModelSampling", tall=240, model=loaded)["MODEL"]
    return model, checkpoint["CLIP"], checkpoint["VAE"]


def refiner_prompt(g: Graph, clip: Socket, title: str, text: str, score: float) -> Socket:
    return g.add("CLIPTextEncodeSDXLRefiner", title=title, tall=220, clip=clip, text=text, ascore=score)[0]
