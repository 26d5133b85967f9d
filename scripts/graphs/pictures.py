"""PeRFlow on pictures that are there: image to image, inpainting, the ControlNet-Tile refiner."""

from __future__ import annotations

from . import files
from .drawing import SHORT_HEAD, Graph, Socket, graph
from .parts import UNWANTED, decode, ksampler, prompts, prompts_and_size, save, sd15_with_delta
from .text_to_image import SD15_SETTINGS

SHARP = "best quality, highly detailed, sharp focus"


@graph("10 SD1.5 image to image", new_seeds=True)
def image_to_image(g: Graph) -> None:
    g.head(f"""## PeRFlow: image to image

{files.file_list(files.SD15, files.SD15_DELTA)}

**denoise** in *KSampler* says where the path starts: 0.75 is timestep 750. With a lower value more of the picture
stays. Start at a window edge if you can, with as many steps as there are windows left: 3 steps at 0.75, 2 at 0.5, 1 at
0.25.

**CFG** is the same as for text to image: 4.5.
""")
    model, clip, vae = sd15_model(g)
    g.column(400, "2  Prompts")
    positive, negative = prompts(g, clip, "an oil painting of a castle by a lake, thick brush strokes")
    latent = encoded_picture(g, 3, vae)
    g.column(400, "4  Three steps, from timestep 750")
    samples = ksampler(g, model, positive, negative, latent, steps=3, cfg=4.5, denoise=0.75)
    save(g, decode(g, samples, vae), "PeRFlow-image-to-image")


@graph("11 SD1.5 inpainting", new_seeds=True)
def inpainting(g: Graph) -> None:
    g.head(
        f"""## PeRFlow: inpainting

{files.file_list(files.SD15, files.SD15_DELTA)}

The graph repaints the rectangle in the middle and keeps the rest.

**To paint the mask yourself**: right-click the picture, choose *Open in Mask Editor*, and connect MASK of *Load Image*
to *Set Latent Noise Mask* instead of the rectangle.

An inpainting checkpoint (9 input channels) also works: turn on *partial* in *Apply PeRFlow Delta* and encode with
*InpaintModelConditioning*.

{SD15_SETTINGS}
""",
        SHORT_HEAD,
    )
    model, clip, vae = sd15_model(g)
    latent = encoded_picture(g, 2, vae)
    g.column(370, "3  What to repaint, and prompts")
    keep = g.add("SolidMask", title="Keep", value=0.0, width=512, height=512)["MASK"]
    paint = g.add("SolidMask", title="Paint", value=1.0, width=256, height=256)["MASK"]
    mask = g.add("MaskComposite", destination=keep, source=paint, x=128, y=128, operation="add")["MASK"]
    masked = g.add("SetLatentNoiseMask", samples=latent, mask=mask)["LATENT"]
    positive, negative = prompts(g, clip, "a castle on a hill, golden light")
    g.column(400, "4  Four steps")
    samples = ksampler(g, model, positive, negative, masked, steps=4, cfg=4.5)
    save(g, decode(g, samples, vae), "PeRFlow-inpainting")


@graph("14 SD1.5 refiner to 1024", new_seeds=True)
def refiner(g: Graph) -> None:
    g.head(f"""## PeRFlow Refiner: a picture to 1024 in four steps

{files.file_list(files.SD15, files.SD15_DELTA, files.TILE)}

The picture is scaled to 1024 and used twice: as the start of the path, and as the picture that ControlNet-Tile keeps
to.

**Settings**, as in PeRFlow's demo: strength (denoise) 1.0, 4 steps, CFG 4.5. A ControlNet strength below 1 gives the
model more freedom.
""")
    model, clip, vae = sd15_model(g)
    tile = g.add("ControlNetLoader", tall=100, control_net_name=files.TILE)["CONTROL_NET"]
    g.column(400, "2  Prompts")
    positive, negative = prompts(g, clip, SHARP, UNWANTED)
    g.column(340, "3  Picture at 1024")
    image = g.add("LoadImage", tall=310, image="example.png")["IMAGE"]
    samples = refined(g, 4, image, model, vae, (positive, negative), tile)
    save(g, decode(g, samples, vae), "PeRFlow-refined")


@graph("15 SD1.5 text to image then refiner", new_seeds=True)
def text_to_image_then_refiner(g: Graph) -> None:
    g.head(f"""## PeRFlow: 512 in four steps, then 1024 in four more

{files.file_list(files.SD15, files.SD15_DELTA, files.TILE)}

The first picture is made at 512, the size that SD1.5 was trained for, then scaled to 1024 and refined with
ControlNet-Tile.

**Settings** for both: 4 steps, CFG 4.5. The refiner's strength (denoise) is 1.0; the ControlNet keeps it close to the
first picture.
""")
    model, clip, vae = sd15_model(g)
    tile = g.add("ControlNetLoader", tall=100, control_net_name=files.TILE)["CONTROL_NET"]
    positive, negative, latent = prompts_and_size(g, 2, clip, 512)
    g.column(340, "3  Text to image, 512")
    first = ksampler(g, model, positive, negative, latent, steps=4, cfg=4.5)
    image = decode(g, first, vae)
    g.add("SaveImage", tall=340, images=image, filename_prefix="PeRFlow-512")
    g.column(340, "4  Picture at 1024")
    samples = refined(g, 5, image, model, vae, (positive, negative), tile)
    save(g, decode(g, samples, vae), "PeRFlow-1024")


def sd15_model(g: Graph) -> tuple[Socket, Socket, Socket]:
    """The accelerated model, text encoder and VAE, in a column of their own."""
    checkpoint, model = sd15_with_delta(g)
    return model, checkpoint["CLIP"], checkpoint["VAE"]


def encoded_picture(g: Graph, number: int, vae: Socket) -> Socket:
    """A picture of the user's as a latent, in a column of its own."""
    g.column(340, f"{number}  Picture")
    image = g.add("LoadImage", tall=310, image="example.png")["IMAGE"]
    scaled = g.add("ImageScale", image=image, upscale_method="lanczos", width=512, height=512, crop="center")["IMAGE"]
    return g.add("VAEEncode", pixels=scaled, vae=vae)["LATENT"]


def refined(
    g: Graph, number: int, image: Socket, model: Socket, vae: Socket, conditioning: tuple[Socket, Socket], tile: Socket
) -> Socket:
    """The picture kept to by ControlNet-Tile, below what is in the column, and four steps in a column of their own."""
    positive, negative = conditioning
    scaled = g.add("ImageScale", image=image, upscale_method="lanczos", width=1024, height=1024, crop="center")["IMAGE"]
    latent = g.add("VAEEncode", pixels=scaled, vae=vae)["LATENT"]
    applied = g.add("ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=tile, image=scaled)
    g.column(400, f"{number}  Refine in four steps")
    return ksampler(g, model, applied["positive"], applied["negative"], latent, steps=4, cfg=4.5)
