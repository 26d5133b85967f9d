"""Wonder3D with the PeRFlow delta: an object of words, from six sides."""

from __future__ import annotations

from . import files
from .drawing import Graph, Node, Socket, graph
from .parts import decode, empty_latent, ksampler, prompts, sd15_with_delta

OBJECT = "a red toy robot, the whole figure, seen from the front, centred, plain white background, product photograph"
NOT_WHOLE = "cropped, cut off, several objects, shadow, blurry, low quality, text"


@graph("40 Wonder3D twelve views")
def twelve_views(g: Graph) -> None:
    g.column(420)
    needed = files.SD15, files.SD15_DELTA, files.WONDER3D, files.WONDER3D_IMAGE_ENCODER, files.BACKGROUND_REMOVAL
    g.note(f"""## Twelve views of a picture, in four steps

{files.file_list(*needed)}

Needs ComfyUI 0.26 or later, which has *Remove Background*. In an older one delete its two nodes: without a mask the
whole picture is used, so its background should be white.

1. PeRFlow draws an object in four steps.
2. *Remove Background* cuts it out, *Wonder3D Conditioning* puts it on white.
3. Wonder3D draws it from six sides, as normals and as colours, in four steps at CFG 1. *partial* is on, since
Wonder3D's input layer has no place in the delta; the other 685 tensors are applied.

**With a picture of your own**: put *Load Image* in place of step 1. The object should be whole and seen from the front.
""")
    checkpoint, image = drawn_object(g)
    g.column(400, "3  The object alone")
    views = six_views(g, checkpoint, image, mask_of_object(g, image))
    g.column(700)
    g.add("PreviewImage", title="Sheet", tall=340, images=views["sheet"])
    g.add("SaveImage", title="Colours", tall=340, images=views["colours"], filename_prefix="Wonder3D-colours")
    g.add("SaveImage", title="Normals", tall=340, images=views["normals"], filename_prefix="Wonder3D-normals")


def drawn_object(g: Graph) -> tuple[Node, Socket]:
    """Checkpoint and picture of an object, in two columns."""
    checkpoint, model = sd15_with_delta(g)
    g.column(400, "2  A picture in four steps")
    positive, negative = prompts(g, checkpoint["CLIP"], OBJECT, NOT_WHOLE)
    latent = empty_latent(g, 512)
    samples = ksampler(g, model, positive, negative, latent, steps=4, cfg=4.5)
    return checkpoint, decode(g, samples, checkpoint["VAE"])


def mask_of_object(g: Graph, image: Socket) -> Socket:
    remover = g.add("LoadBackgroundRemovalModel", bg_removal_name=files.BACKGROUND_REMOVAL)["bg_model"]
    return g.add("RemoveBackground", bg_removal_model=remover, image=image)["mask"]


def six_views(g: Graph, checkpoint: Node, image: Socket, mask: Socket) -> Node:
    """Wonder3D's views, with groups 4 and 5; what it reads is below the mask."""
    encoder = g.add("CLIPVisionLoader", clip_name=files.WONDER3D_IMAGE_ENCODER)["CLIP_VISION"]
    seen = g.add(
        "Wonder3DConditioning",
        tall=140,  # the page of 0.26 makes it a little taller
        clip_vision=encoder,
        vae=checkpoint["VAE"],
        image=image,
        mask=mask,
    )
    g.column(380, "4  Wonder3D with the delta")
    unet = g.add("Wonder3DLoader", unet_name=files.WONDER3D)["MODEL"]
    fast = g.add("PeRFlowApplyDelta", tall=340, model=unet, delta_name=files.SD15_DELTA, partial=True)["MODEL"]
    g.column(330, "5  Twelve views in four steps")
    drawn = ksampler(g, fast, seen["positive"], seen["negative"], seen["latent"], steps=4, cfg=1.0)
    return g.add("Wonder3DViews", tall=116, images=decode(g, drawn, checkpoint["VAE"]))
