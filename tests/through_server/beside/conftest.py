"""Graphs with the nodes of other packs, on a server that has every pack that is here, and what stock nodes give."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from api_graph import ApiGraph, Link, latents

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SIZE = {"width": 64, "height": 64}


@pytest.fixture(autouse=True)
def other_pack(request):
    """A file's VARIABLE names its pack: without a checkout its tests are left out."""
    import other_packs

    other_packs.checkout(request.module.VARIABLE)


@pytest.fixture
def server(other_pack, request):
    """Asked for by name: a fixture of the session would start before it is known that the pack is missing."""
    return request.getfixturevalue("server_beside_others")


@dataclass
class Accelerated:
    """A graph with PeRFlow on a small SD1.5 model; the rest is stock nodes, for what a pack's nodes should give."""

    SEED: ClassVar = 7
    SAMPLING: ClassVar = {"cfg": 2.0, "sampler_name": "euler"}

    graph: ApiGraph
    model: Link
    clip: Link
    vae: Link

    def text(self, words: str, clip: Link | None = None) -> Link:
        return self.graph.add("CLIPTextEncode", clip=clip or self.clip, text=words)

    def photo(self) -> Link:
        photo = self.graph.add("LoadImage", image="example.png")
        return self.graph.add("ImageScale", image=photo, upscale_method="area", crop="disabled", **SIZE)

    def everywhere(self) -> Link:
        """A mask over the whole picture."""
        return self.graph.add("SolidMask", value=1.0, **SIZE)

    def empty(self, frames: int = 1) -> Link:
        return self.graph.add("EmptyLatentImage", batch_size=frames, **SIZE)

    def ksampler(self, positive: Link, steps: int = 4, latent: Link | None = None, **inputs) -> Link:
        sampling = self.SAMPLING | {"seed": self.SEED, "scheduler": "simple", "denoise": 1.0}
        links = {"model": self.model, "negative": self.text("blurry"), "latent_image": latent or self.empty()}
        return self.graph.add("KSampler", positive=positive, steps=steps, **(links | sampling | inputs))

    def in_parts(self, steps: int, *parts: tuple[int, dict]) -> Link:
        """SamplerCustom on the official steps: (how many of them, its own model, positive or negative) by part."""
        sigmas = self.graph.add(
            "PeRFlowWindowSchedule", model=self.model, steps=steps, denoise=1.0, end="zero", steps_per_window=""
        )
        euler = self.graph.add("KSamplerSelect", sampler_name="euler")
        links, latent = {"model": self.model, "negative": self.text("blurry")}, self.empty()
        for number, (length, own) in enumerate(parts):
            split = self.graph.add("SplitSigmas", sigmas=sigmas, step=length)
            inputs = links | own | {"add_noise": number == 0, "sigmas": split, "latent_image": latent}
            inputs |= {"noise_seed": self.SEED, "cfg": self.SAMPLING["cfg"]}
            latent = self.graph.add("SamplerCustom", sampler=euler, **inputs)
            sigmas = self.graph.output(split, 1)
        return latent


@pytest.fixture
def accelerated():
    graph = ApiGraph()
    base = graph.add("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    sampling = {"strength": 1.0, "prediction_type": "auto", "windows": 0, "align_steps": True}
    model = graph.add("PeRFlowApplyDelta", model=base, delta_name="perflow-sd15-delta-v0-1.safetensors", **sampling)
    return Accelerated(graph, model, graph.output(base, 1), graph.output(base, 2))


@pytest.fixture
def run(server, accelerated):
    """Links -> the latents that they lead to."""
    return lambda *links: latents(server, accelerated.graph, *links)
