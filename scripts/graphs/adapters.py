"""PeRFlow with ControlNet and IP-Adapter beside it."""

from __future__ import annotations

from . import files
from .drawing import Graph, Socket, graph
from .parts import decode, ksampler, prompts_and_size, save, sd15_with_delta
from .text_to_image import SD15_SETTINGS

IPADAPTER_PLUS = """This graph needs the node pack
[ComfyUI_IPAdapter_plus](https://github.com/cubiq/ComfyUI_IPAdapter_plus) (the same name in the Manager)."""


@graph("07 SD1.5 ControlNet", new_seeds=True)
def controlnet(g: Graph) -> None:
    g.head(f"""## PeRFlow with ControlNet

{files.file_list(files.SD15, files.SD15_DELTA, files.DEPTH, files.CANNY)}

**Depth** (set already): choose a depth map in *Load Image*; near things are white. A node pack such as
comfyui_controlnet_aux makes one from a photo.

**Canny**: choose the canny file in *Load ControlNet Model*, select the bypassed *Canny* node, press Ctrl+B, and load
an ordinary picture.

**Pose**: choose `control_v11p_sd15_openpose_fp16.safetensors` from the same page and load a picture of the skeleton.

{SD15_SETTINGS}
With 4 steps, *end_percent* 0.25, 0.5 and 0.75 control the first 1, 2 and 3 steps. *start_percent* leaves as many out.
""")
    checkpoint, model = sd15_with_delta(g)
    positive, negative, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 512)
    g.column(340, "3  Control picture")
    image = g.add("LoadImage", tall=340, image="example.png")["IMAGE"]
    edges = g.add("Canny", title="Canny (bypassed)", bypassed=True, image=image)["IMAGE"]
    control = g.add("ControlNetLoader", control_net_name=files.DEPTH)["CONTROL_NET"]
    applied = g.add(
        "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=control, image=edges, strength=1.0
    )
    g.column(400, "4  Four steps")
    samples = ksampler(g, model, applied["positive"], applied["negative"], latent, steps=4, cfg=4.5)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow-ControlNet")


@graph("08 SD1.5 IP-Adapter and ControlNet", new_seeds=True)
def ip_adapter_sd15(g: Graph) -> None:
    g.head(f"""## PeRFlow with IP-Adapter and ControlNet

{IPADAPTER_PLUS}

{files.file_list(files.SD15, files.SD15_DELTA, files.IP_ADAPTER_SD15, files.VIT_H, files.DEPTH)}

*IPAdapter Advanced* goes after *Apply PeRFlow Delta*: it reads the sampling when it runs.

The ControlNet takes a depth map; near things are white. To switch it off, select *Apply ControlNet* and press Ctrl+B.

**Settings**: 4 steps, CFG 4.5, weight 0.6.
""")
    checkpoint, model = sd15_with_delta(g)
    positive, negative, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 512, "best quality, high quality")
    g.column(380, "3  Reference picture")
    adapted = reference(g, model, files.IP_ADAPTER_SD15)
    g.column(340, "4  ControlNet")
    depth = g.add("LoadImage", title="Depth map", tall=340, image="example.png")["IMAGE"]
    control = g.add("ControlNetLoader", control_net_name=files.DEPTH)["CONTROL_NET"]
    applied = g.add(
        "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=control, image=depth, strength=0.8
    )
    g.column(400, "5  Four steps")
    samples = ksampler(g, adapted, applied["positive"], applied["negative"], latent, steps=4, cfg=4.5)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow-IPAdapter")


@graph("09 SDXL IP-Adapter", new_seeds=True)
def ip_adapter_sdxl(g: Graph) -> None:
    g.head(f"""## PeRFlow SDXL with IP-Adapter

{IPADAPTER_PLUS}

{files.file_list(files.SDXL_PERFLOW, files.SDXL, files.IP_ADAPTER_SDXL, files.VIT_H)}

**Settings**, as in PeRFlow's demo: 6 steps, CFG 1.5, weight 0.6. The demo uses `ip-adapter_sdxl`, whose image
encoder (ViT-bigG) is three times as large; both work here.
""")
    g.column(380, "1  Model")
    checkpoint = g.add("CheckpointLoaderSimple", title="Text encoders and VAE", ckpt_name=files.SDXL)
    unet = g.add("UNETLoader", unet_name=files.SDXL_PERFLOW)
    model = g.add("PeRFlowModelSampling", tall=240, model=unet["MODEL"])["MODEL"]
    positive, negative, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 1024, "best quality, high quality")
    g.column(380, "3  Reference picture")
    adapted = reference(g, model, files.IP_ADAPTER_SDXL)
    g.column(400, "4  Six steps")
    samples = ksampler(g, adapted, positive, negative, latent, steps=6, cfg=1.5)
    save(g, decode(g, samples, checkpoint["VAE"]), "PeRFlow-SDXL-IPAdapter")


def reference(g: Graph, model: Socket, adapter: files.File) -> Socket:
    """The model with a picture as a prompt."""
    image = g.add("LoadImage", tall=310, image="example.png")["IMAGE"]
    loaded = g.add("IPAdapterModelLoader", ipadapter_file=adapter)["IPADAPTER"]
    vision = g.add("CLIPVisionLoader", clip_name=files.VIT_H)["CLIP_VISION"]
    return g.add(
        "IPAdapterAdvanced",
        tall=400,  # the page of 0.18.2 makes it 422
        model=model,
        ipadapter=loaded,
        image=image,
        clip_vision=vision,
        weight=0.6,
    )[0]
