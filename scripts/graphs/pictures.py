"""PeRFlow on pictures that are there: image to image, inpainting, the ControlNet-Tile refiner."""

from __future__ import annotations

from . import files
from .drawing import Graph, Socket, graph
from .parts import UNWANTED, custom_sampling, decode, ksampler, prompts, prompts_and_size, save, sd15_with_delta
from .text_to_image import SD15_SETTINGS

SHARP = "best quality, highly detailed, sharp focus"


@graph("PeRFlow SD1.5 image to image")
def image_to_image(g: Graph) -> None:
    g.column(400)
    g.note(f"""## PeRFlow: image to image

{files.file_list(files.SD15, files.SD15_DELTA)}

**denoise** in *Window Schedule* says where the path starts: 0.75 is timestep 750. Start at a window edge (0.25, 0.5,
0.75) if you can; between edges the first window is shorter. With a lower value more of the picture stays.

**steps** are shared by the windows that are left. At 0.75 three are left, so 3 steps are enough.

**CFG** is the same as for text to image: 4.5 at 4 steps.
""")
    model, clip, vae = sd15_model(g)
    g.column(340, "2  Picture")
    image = g.add("LoadImage", tall=340, image="example.png")["IMAGE"]
    scaled = g.add("ImageScale", image=image, upscale_method="lanczos", width=512, height=512, crop="center")["IMAGE"]
    latent = g.add("VAEEncode", pixels=scaled, vae=vae)["LATENT"]
    g.column(400, "3  Prompts")
    conditioning = prompts(g, clip, "an oil painting of a castle by a lake, thick brush strokes")
    g.column(320, "4  From timestep 750")
    parts = custom_sampling(g, model, conditioning, cfg=4.5)
    sigmas = g.add("PeRFlowWindowSchedule", tall=270, model=model, steps=3, denoise=0.75)["SIGMAS"]
    g.column(340, "5  Sample and decode")
    samples = g.add("SamplerCustomAdvanced", **parts, sigmas=sigmas, latent_image=latent)["output"]
    save(g, decode(g, samples, vae), "PeRFlow-image-to-image")


@graph("PeRFlow SD1.5 inpainting")
def inpainting(g: Graph) -> None:
    g.column(400)
    g.note(f"""## PeRFlow: inpainting

{files.file_list(files.SD15, files.SD15_DELTA)}

The graph repaints the rectangle in the middle and keeps the rest.

**To paint the mask yourself**: right-click the picture, choose *Open in Mask Editor*, and connect MASK of *Load Image*
to *Set Latent Noise Mask* instead of the rectangle.

An inpainting checkpoint (9 input channels) also works: turn on *partial* in *Apply PeRFlow Delta* and encode with
*InpaintModelConditioning*.

{SD15_SETTINGS}
""")
    model, clip, vae = sd15_model(g)
    g.column(340, "2  Picture")
    image = g.add("LoadImage", tall=340, image="example.png")["IMAGE"]
    scaled = g.add("ImageScale", image=image, upscale_method="lanczos", width=512, height=512, crop="center")["IMAGE"]
    latent = g.add("VAEEncode", pixels=scaled, vae=vae)["LATENT"]
    g.column(320, "3  What to repaint")
    keep = g.add("SolidMask", title="Keep", value=0.0, width=512, height=512)["MASK"]
    paint = g.add("SolidMask", title="Paint", value=1.0, width=256, height=256)["MASK"]
    mask = g.add("MaskComposite", destination=keep, source=paint, x=128, y=128, operation="add")["MASK"]
    masked = g.add("SetLatentNoiseMask", samples=latent, mask=mask)["LATENT"]
    g.column(400, "4  Prompts")
    positive, negative = prompts(g, clip, "a castle on a hill, golden light")
    g.column(330, "5  Four steps")
    samples = ksampler(g, model, positive, negative, masked, steps=4, cfg=4.5)
    save(g, decode(g, samples, vae), "PeRFlow-inpainting")


@graph("PeRFlow SD1.5 Refiner to 1024")
def refiner(g: Graph) -> None:
    g.column(400)
    g.note(f"""## PeRFlow Refiner: a picture to 1024 in four steps

{files.file_list(files.SD15, files.SD15_DELTA, files.TILE)}

The picture is scaled to 1024 and used twice: as the start of the path, and as the picture that ControlNet-Tile keeps
to.

**Settings**, as in PeRFlow's demo: strength (denoise) 1.0, 4 steps, CFG 4.5. A ControlNet strength below 1 gives the
model more freedom.
""")
    model, clip, vae = sd15_model(g)
    g.column(400, "2  Prompts")
    positive, negative = prompts(g, clip, SHARP, UNWANTED)
    g.column(340, "3  Picture")
    image = g.add("LoadImage", tall=340, image="example.png")["IMAGE"]
    g.column(340, "4  Refine to 1024")
    samples = refined(g, image, model, vae, positive, negative)
    save(g, decode(g, samples, vae), "PeRFlow-refined")


@graph("PeRFlow SD1.5 text to image then Refiner")
def text_to_image_then_refiner(g: Graph) -> None:
    g.column(400)
    g.note(f"""## PeRFlow: 512 in four steps, then 1024 in four more

{files.file_list(files.SD15, files.SD15_DELTA, files.TILE)}

The first picture is made at 512, the size that SD1.5 was trained for, then scaled to 1024 and refined with
ControlNet-Tile.

**Settings** for both: 4 steps, CFG 4.5. The refiner's strength (denoise) is 1.0; the ControlNet keeps it close to the
first picture.
""")
    model, clip, vae = sd15_model(g)
    positive, negative, latent = prompts_and_size(g, 2, clip, 512)
    g.column(340, "3  Text to image, 512")
    first = ksampler(g, model, positive, negative, latent, steps=4, cfg=4.5)
    image = decode(g, first, vae)
    g.add("SaveImage", tall=340, images=image, filename_prefix="PeRFlow-512")
    g.column(340, "4  Refine to 1024")
    samples = refined(g, image, model, vae, positive, negative)
    save(g, decode(g, samples, vae), "PeRFlow-1024")


def sd15_model(g: Graph) -> tuple[Socket, Socket, Socket]:
    """The accelerated model, text encoder and VAE, in a column of their own."""
    checkpoint, model = sd15_with_delta(g)
    return model, checkpoint["CLIP"], checkpoint["VAE"]


def refined(g: Graph, image: Socket, model: Socket, vae: Socket, positive: Socket, negative: Socket) -> Socket:
    scaled = g.add("ImageScale", image=image, upscale_method="lanczos", width=1024, height=1024, crop="center")["IMAGE"]
    latent = g.add("VAEEncode", pixels=scaled, vae=vae)["LATENT"]
    tile = g.add("ControlNetLoader", control_net_name=files.TILE)["CONTROL_NET"]
    applied = g.add("ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=tile, image=scaled)
    return ksampler(g, model, applied["positive"], applied["negative"], latent, steps=4, cfg=4.5)
