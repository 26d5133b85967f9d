"""Groups of nodes that several graphs have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import files
from .drawing import Graph, Node, Socket

LIGHTHOUSE = "a lighthouse on a cliff at sunset, dramatic clouds, warm light, highly detailed photograph"
SAMPLER = 312  # what a KSampler needs where it is tallest: Nodes 2.0 of ComfyUI 0.26
UNWANTED = "blurry, low quality, distorted, watermark, text"


def prompts(g: Graph, clip: Socket, positive: str = LIGHTHOUSE, negative: str = UNWANTED) -> tuple[Socket, Socket]:
    first = g.add("CLIPTextEncode", title="Positive prompt", tall=130, clip=clip, text=positive)
    second = g.add("CLIPTextEncode", title="Negative prompt", tall=100, clip=clip, text=negative)
    return first["CONDITIONING"], second["CONDITIONING"]


def prompts_and_size(
    g: Graph, number: int, clip: Socket, size: int, positive: str = LIGHTHOUSE, kind: str = "EmptyLatentImage"
) -> tuple[Socket, Socket, Socket]:
    """Positive, negative and the empty latent, in a column of their own."""
    g.column(400, f"{number}  Prompts and size")
    return *prompts(g, clip, positive), empty_latent(g, size, kind)


def empty_latent(g: Graph, size: int, kind: str = "EmptyLatentImage", batch_size: int = 1) -> Socket:
    return g.add(kind, width=size, height=size, batch_size=batch_size)["LATENT"]


def sd15_with_delta(g: Graph) -> tuple[Node, Socket]:
    """The loaded checkpoint and the accelerated model, in a column of their own."""
    g.column(390, "1  Model and delta")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SD15)
    model = g.add("PeRFlowApplyDelta", tall=300, model=checkpoint["MODEL"], delta_name=files.SD15_DELTA)["MODEL"]
    return checkpoint, model


def ksampler(
    g: Graph, model: Socket, positive: Socket, negative: Socket, latent: Socket, *, title: str | None = None, **how: Any
) -> Socket:
    """A plain KSampler with euler and simple, unless `how` has others."""
    settings: dict[str, Any] = {"seed": 1234, "sampler_name": "euler", "scheduler": "simple"}
    links = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    return g.add("KSampler", title=title, tall=SAMPLER, **settings | links | how)["LATENT"]


def custom_sampling(
    g: Graph, model: Socket, conditioning: Sequence[Socket], cfg: float, sampler: str = "PeRFlowSampler"
) -> dict[str, Any]:
    """Guider, noise and sampler for SamplerCustomAdvanced, which then needs sigmas and a latent."""
    positive, negative = conditioning
    guider = g.add("CFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)["GUIDER"]
    noise = g.add("RandomNoise", noise_seed=1234)["NOISE"]
    solver = g.add("PeRFlowSampler") if sampler == "PeRFlowSampler" else g.add("KSamplerSelect", sampler_name=sampler)
    return {"guider": guider, "noise": noise, "sampler": solver["SAMPLER"]}


def decode(g: Graph, samples: Socket, vae: Socket) -> Socket:
    return g.add("VAEDecode", samples=samples, vae=vae)["IMAGE"]


def save(g: Graph, image: Socket, name: str, title: str | None = None, *, beside: bool = False) -> None:
    """The picture, below what made it or, in a graph of few columns, in a column of its own."""
    if beside:
        g.column(440)
    g.add("SaveImage", title=title, tall=500 if beside else 460, images=image, filename_prefix=name)
