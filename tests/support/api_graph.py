"""A graph in API form, put together node by node, and what it makes: latents, pictures."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

Link = list[Any]  # the id of a node, the number of its output
Json = dict[str, Any]
SAME = 5e-5  # relative error of a latent below which two ways of a small random model are one; another step is 1e-1


class ApiGraph:
    """`graph.add("KSampler", model=model, ...)` -> the link to its first output."""

    def __init__(self) -> None:
        self.prompt: Json = {}

    def add(self, kind: str, **inputs: Any) -> Link:
        key = str(len(self.prompt) + 1)
        self.prompt[key] = {"class_type": kind, "inputs": inputs}
        return [key, 0]

    @staticmethod
    def output(link: Link, number: int) -> Link:
        """Another output of the same node."""
        return [link[0], number]


def latents(server, graph: ApiGraph, *links: Link) -> list[torch.Tensor]:
    """Run the graph on a ComfyServer: the LATENTs that those links lead to, as ComfyUI saves them."""
    from safetensors.torch import load_file

    savers = [graph.add("SaveLatent", samples=link, filename_prefix="latents/beside") for link in links]
    outputs = server.run(graph.prompt)["outputs"]
    saved = [outputs[saver[0]]["latents"][0] for saver in savers]
    return [load_file(server.base / "output" / file["subfolder"] / file["filename"])["latent_tensor"] for file in saved]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def pictures(server, graph: ApiGraph, *links: Link) -> list[np.ndarray]:
    """The same for IMAGES: levels of 0 to 255, [height, width, 3]."""
    savers = [graph.add("SaveImage", images=link, filename_prefix="beside") for link in links]
    outputs = server.run(graph.prompt)["outputs"]
    files = [server.image(**outputs[saver[0]]["images"][0]) for saver in savers]
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(float) for file in files]
