"""From a picture to 3D by what ComfyUI and others have for it: Hunyuan3D 2, TripoSplat, TripoSR."""

from __future__ import annotations

from . import files
from .drawing import Graph, Node, Socket, graph
from .parts import ksampler
from .wonder3d import drawn_object, mask_of_object, six_views

NEEDS = "Needs ComfyUI 0.26 or later, which has *Remove Background*."
PICTURE = files.SD15, files.SD15_DELTA, files.BACKGROUND_REMOVAL
OF_YOUR_OWN = """**With a picture of your own**: put *Load Image* in place of step 1. The object should be whole
and seen from the front."""

# Hunyuan3D's views, and their places among Wonder3D's. In Hunyuan3D's "left" an object looks to the left of the
# picture; in Wonder3D that view is "right", since the camera stands there.
VIEWS = {"Front": 0, "Left: Wonder3D's right": 2, "Back": 3, "Right: Wonder3D's left": 4}


@graph("36 Text to 3D")
def hunyuan3d(g: Graph) -> None:
    g.head(f"""## Text to 3D: a picture in four steps, then its shape

{files.file_list(*PICTURE, files.HUNYUAN3D)}

{NEEDS}

1. PeRFlow draws an object in four steps.
2. *Remove Background* cuts it out, and it is laid on white, as Hunyuan3D 2 expects it.
3. ComfyUI's own nodes for Hunyuan3D 2 make its shape. *Save 3D Model* writes a .glb file and shows it; the shape has no
colours.

**Settings** of Hunyuan3D 2 are those of ComfyUI's own template: 20 steps, CFG 8 (4 to 8 work), octree resolution 256
(with 128 it is faster and coarser).

{OF_YOUR_OWN}
""")
    _, image = drawn_object(g)
    g.column(400, "3  The object on white")
    white = on_white(g, image)
    save_picture(g, image)
    g.column(400, "4  Hunyuan3D 2")
    loader = g.add("ImageOnlyCheckpointLoader", ckpt_name=files.HUNYUAN3D)
    seen = g.add("Hunyuan3Dv2Conditioning", clip_vision_output=encoded(g, loader, white))
    save_mesh(g, shape(g, loader, seen, cfg=8.0))


@graph("37 Text to 3D from Wonder3D views")
def hunyuan3d_of_views(g: Graph) -> None:
    g.column(420)
    needed = *PICTURE, files.WONDER3D, files.WONDER3D_IMAGE_ENCODER, files.HUNYUAN3D_VIEWS
    g.note(f"""## Text to 3D from four views

{files.file_list(*needed)}

{NEEDS}

1. PeRFlow draws an object in four steps.
2. *Remove Background* cuts it out.
3. Wonder3D with the same delta draws it from six sides, in four steps.
4. Front, left, back and right go to ComfyUI's own nodes for Hunyuan3D 2, in its form for several views. *Save 3D Model*
writes a .glb file and shows it; the shape has no colours.

**Left and right** change places on the way: Hunyuan3D 2 names the object's own sides, Wonder3D those of the person who
looks at it.

**Settings** of Hunyuan3D 2 are those of ComfyUI's own template: 20 steps, CFG 7.5, octree resolution 256 (with 128 it
is faster and coarser).

{OF_YOUR_OWN}
""")
    checkpoint, image = drawn_object(g)
    g.column(400, "3  The object alone")
    mask = mask_of_object(g, image)
    save_picture(g, image)
    views = six_views(g, checkpoint, image, mask)
    g.add("PreviewImage", title="Sheet", tall=340, images=views["sheet"])
    g.column(340, "6  Four of the views")
    front, left, back, right = [
        g.add("ImageFromBatch", title=title, image=views["colours"], batch_index=place, length=1)["IMAGE"]
        for title, place in VIEWS.items()
    ]
    g.column(400, "7  Hunyuan3D 2 for several views")
    loader = g.add("ImageOnlyCheckpointLoader", ckpt_name=files.HUNYUAN3D_VIEWS)
    seen = g.add(
        "Hunyuan3Dv2ConditioningMultiView",
        front=encoded(g, loader, front, "Front"),
        left=encoded(g, loader, left, "Left"),
        back=encoded(g, loader, back, "Back"),
        right=encoded(g, loader, right, "Right"),
    )
    save_mesh(g, shape(g, loader, seen, cfg=7.5, number=8))


@graph("38 Text to 3D with TripoSplat")
def triposplat(g: Graph) -> None:
    g.column(420)
    splats = (files.TRIPOSPLAT, files.TRIPOSPLAT_DECODER, files.TRIPOSPLAT_IMAGE_ENCODER, files.FLUX2_VAE)
    g.note(f"""## Text to 3D: a picture in four steps, then Gaussian splats

{files.file_list(*PICTURE, *splats)}

Needs ComfyUI 0.26 or later, which has TripoSplat and *Remove Background*.

1. PeRFlow draws an object in four steps.
2. *Remove Background* finds the object, *TripoSplat Preprocess Image* cuts it out.
3. ComfyUI's own nodes for TripoSplat make coloured splats of it. One *Save 3D Model* writes them as .spz, the other as
a coloured mesh, .glb. Both show what they write.

**Settings** of TripoSplat are those of ComfyUI's own template: 20 steps, CFG 3, `dpmpp_2m`, 262144 splats. Fewer splats
take less memory.

{OF_YOUR_OWN}
""")
    _, image = drawn_object(g)
    g.column(400, "3  The object alone")
    alone = g.add("TripoSplatPreprocessImage", image=image, mask=mask_of_object(g, image))["image"]
    g.add("PreviewImage", title="What TripoSplat sees", tall=340, images=alone)
    save_picture(g, image)
    g.column(400, "4  TripoSplat")
    model = g.add("UNETLoader", unet_name=files.TRIPOSPLAT)["MODEL"]
    encoder = g.add("CLIPVisionLoader", clip_name=files.TRIPOSPLAT_IMAGE_ENCODER)["CLIP_VISION"]
    vae = g.add("VAELoader", title="VAE of the picture", vae_name=files.FLUX2_VAE)["VAE"]
    decoder = g.add("VAELoader", title="Decoder of splats", vae_name=files.TRIPOSPLAT_DECODER)["VAE"]
    seen = g.add("TripoSplatConditioning", clip_vision=encoder, vae=vae, image=alone)
    g.column(330, "5  Splats in 20 steps")
    samples = ksampler(
        g, model, seen["positive"], seen["negative"], seen["latent"], steps=20, cfg=3.0, sampler_name="dpmpp_2m"
    )
    splat = g.add("VAEDecodeTripoSplat", samples=samples, vae=decoder)["splat"]
    g.column(330, "6  As files")
    file = g.add("SplatToFile3D", splat=splat, format="spz")["model_3d"]
    mesh = g.add("SplatToMesh", splat=splat)["mesh"]
    g.column(500)
    g.add("SaveGLB", title="Splats", tall=440, mesh=file, filename_prefix="3d/PeRFlow-splats")
    g.add("SaveGLB", title="Mesh", tall=440, mesh=mesh, filename_prefix="3d/PeRFlow")


@graph("39 Text to 3D with TripoSR")
def triposr(g: Graph) -> None:
    g.head(f"""## Text to 3D: a picture in four steps, then TripoSR

{files.file_list(*PICTURE, files.TRIPOSR)}

{NEEDS} It also needs the node pack
[ComfyUI-Flowty-TripoSR](https://github.com/flowtyone/ComfyUI-Flowty-TripoSR) (the same name in the Manager, GPL-3.0).

1. PeRFlow draws an object in four steps.
2. *Remove Background* finds the object.
3. TripoSR makes a coloured mesh of it in one pass. *TripoSR Viewer* writes it to the output folder, as .obj, and shows
it.

**Before you install that pack**: its requirements.txt asks for transformers 4.35.0 and Pillow 10.1.0, which are older
than what ComfyUI needs. Install `omegaconf`, `trimesh` and `scikit-image` by hand instead.

Do not connect *TripoSR Sampler* to *Save 3D Model*: both call it MESH, but the two are different things.

{OF_YOUR_OWN}
""")
    _, image = drawn_object(g)
    g.column(400, "3  The object")
    mask = mask_of_object(g, image)
    save_picture(g, image)
    g.column(380, "4  TripoSR")
    model = g.add("TripoSRModelLoader", model=files.TRIPOSR)["TRIPOSR_MODEL"]
    mesh = g.add("TripoSRSampler", model=model, reference_image=image, reference_mask=mask)["MESH"]
    g.column(600)  # this viewer makes itself as large as that
    g.add("TripoSRViewer", tall=500, mesh=mesh)


def on_white(g: Graph, image: Socket) -> Socket:
    """White laid over what is not the object; it takes the size of the picture, whatever that is."""
    around = g.add("InvertMask", mask=mask_of_object(g, image))["MASK"]
    white = g.add("EmptyImage", title="White", width=512, height=512, color=0xFFFFFF)["IMAGE"]
    return g.add("ImageCompositeMasked", destination=image, source=white, mask=around, resize_source=True)["IMAGE"]


def encoded(g: Graph, loader: Node, image: Socket, title: str | None = None) -> Socket:
    seen = g.add("CLIPVisionEncode", title=title, clip_vision=loader["CLIP_VISION"], image=image, crop="none")
    return seen["CLIP_VISION_OUTPUT"]


def shape(g: Graph, loader: Node, seen: Node, cfg: float, number: int = 5) -> Socket:
    """Hunyuan3D's mesh, in a column of its own."""
    g.column(330, f"{number}  Its shape in 20 steps")
    latent = g.add("EmptyLatentHunyuan3Dv2")["LATENT"]
    samples = ksampler(
        g, loader["MODEL"], seen["positive"], seen["negative"], latent, steps=20, cfg=cfg, scheduler="normal"
    )
    voxels = g.add("VAEDecodeHunyuan3D", samples=samples, vae=loader["VAE"])["VOXEL"]
    return g.add("VoxelToMesh", voxel=voxels)["MESH"]


def save_picture(g: Graph, image: Socket) -> None:
    g.add("SaveImage", title="The picture", tall=340, images=image, filename_prefix="PeRFlow-object")


def save_mesh(g: Graph, mesh: Socket) -> None:
    """ComfyUI's own node, which is its viewer too."""
    g.column(600)
    g.add("SaveGLB", title="3D", tall=560, mesh=mesh, filename_prefix="3d/PeRFlow")
