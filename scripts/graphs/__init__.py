"""The example graphs as programs: `python scripts/draw_graphs.py` writes them to workflows/.

`drawing` turns nodes named by type, with inputs named as in their schema, into ComfyUI's saved form. `files` names the
model files. Each of the other modules draws the graphs of one theme.
"""

from __future__ import annotations

from collections.abc import Callable

from . import adapters, beside_the_base, deltas, editing, instaflow, pcm, pictures, text_to_image, to_3d, wonder3d
from .drawing import Graph

# The title is the file's name and what the template browser shows.
GRAPHS: dict[str, Callable[[Graph], None]] = {
    "PeRFlow SD1.5 text to image": text_to_image.sd15,
    "PeRFlow SDXL text to image": text_to_image.sdxl,
    "PeRFlow SD2.1 merged checkpoint": text_to_image.sd21_merged,
    "PeRFlow SD1.5 with LoRAs": text_to_image.loras,
    "PeRFlow SD1.5 ControlNet": adapters.controlnet,
    "PeRFlow SD1.5 IP-Adapter and ControlNet": adapters.ip_adapter_sd15,
    "PeRFlow SDXL IP-Adapter": adapters.ip_adapter_sdxl,
    "PeRFlow SD1.5 image to image": pictures.image_to_image,
    "PeRFlow SD1.5 inpainting": pictures.inpainting,
    "PeRFlow SD1.5 Refiner to 1024": pictures.refiner,
    "PeRFlow SD1.5 text to image then Refiner": pictures.text_to_image_then_refiner,
    "PeRFlow SD1.5 edit by words": editing.by_words,
    "PeRFlow SD1.5 edit a photo": editing.photo,
    "PeRFlow SD1.5 hand-over to the base model": beside_the_base.hand_over,
    "PeRFlow SD1.5 compared with the base model": beside_the_base.comparison,
    "PeRFlow make a delta": deltas.make,
    "PeRFlow train a delta": deltas.train,
    "InstaFlow one step": instaflow.one_step,
    "InstaFlow ControlNet": instaflow.controlnet,
    "InstaFlow one step then SDXL refiner": instaflow.with_sdxl_refiner,
    "InstaFlow film between two seeds": instaflow.interpolation,
    "2-Rectified-Flow eight steps": instaflow.two_rectified_flow,
    "PCM SD1.5 four steps": pcm.sd15,
    "PCM SDXL four steps": pcm.sdxl,
    "PCM SD3 four steps deterministic": pcm.sd3_deterministic,
    "PCM SD3 four steps stochastic": pcm.sd3_stochastic,
    "Wonder3D twelve views of a picture": wonder3d.twelve_views,
    "PeRFlow text to 3D": to_3d.hunyuan3d,
    "PeRFlow text to 3D from Wonder3D views": to_3d.hunyuan3d_of_views,
    "PeRFlow text to 3D with TripoSplat": to_3d.triposplat,
    "PeRFlow text to 3D with TripoSR": to_3d.triposr,
}
