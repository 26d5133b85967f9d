"""Thumbnails of the example graphs: the part that sets a graph apart, and what the small trained model makes with it.

For the small model a graph gets its files, words, size and guidance; nodes, links and steps stay.
"""

from __future__ import annotations

import copy
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo_options import SMALL
from environment import PACK
from PIL import Image
from trial.small_models.tables import FLOW_CHECKPOINT, FLOW_DELTA, TRAINED_CHECKPOINT, TRAINED_DELTA

from small_model.gallery.sheets import DRAWN

if TYPE_CHECKING:
    from trial.server import ComfyServer

Json = dict[str, Any]
Box = Sequence[float]  # left, top, right, bottom
EDGE = 15  # units of the graph around what is shown
SMALLER = 4  # times: the graphs are for 512 pixels
# Places of pixels among a node's values, and the place of CFG.
SIZES = {"EmptyLatentImage": (0, 1), "ImageScale": (1, 2), "SolidMask": (1, 2), "MaskComposite": (0, 1)}
GUIDANCE = {"KSampler": 3, "CFGGuider": 0}
PERFLOWS_OWN = 5  # the graphs have PeRFlow's CFG below it and the base's above

# What the small flow model is stored in, where it is there; graphs of its layout are made with it.
FLOW_WEIGHTS = ("flow_autoencoder", "flow_delta", "flow_teacher")
FLOW_GRAPHS = ("PeRFlow SD3.5 four steps", "PeRFlow train a delta of a flow model")
FLOW_BASE_CFG = 2.0
FLOW_SIZE = {"EmptySD3LatentImage": (128, 128, 1)}
TRAINING = "PeRFlowTrainDelta"
LEFT_OUT = ("PreviewImage", "LossGraphNode")  # what they show of the training, which is done already
MUTED = 2

# Title of a graph -> title or type of a node -> its first values, where the usual prompt is not what is to be shown.
GRAPHS: dict[str, dict[str, list[str]]] = {
    "PeRFlow SD1.5 text to image": {},
    "PeRFlow SD1.5 all nodes": {},
    "PeRFlow SD1.5 compared with the base model": {
        "Positive prompt": ["a large purple castle in the mountains at night, clear"]
    },
    "PeRFlow SD1.5 hand-over to the base model": {},
    "PeRFlow SD1.5 image to image": {"Positive prompt": ["a red house on a hill at night, snowy"]},
    "PeRFlow SD1.5 inpainting": {"Positive prompt": ["a green tree on a hill at noon"]},
    "PeRFlow SD1.5 edit by words": {
        "PeRFlowPromptToPrompt": [
            "a lighthouse on a cliff at sunset",
            "a castle on a cliff at sunset\na lighthouse on a cliff at night\na lighthouse on a cliff at sunset, snowy",
        ]
    },
    "PeRFlow SD1.5 edit a photo": {
        "Source prompt": ["a red house on a hill at noon"],
        "PeRFlowPromptToPrompt": ["", "a blue house on a hill at noon\na red house on a hill at noon, snowy"],
    },
}


def has_pictures(title: str) -> bool:
    """Whether a small trained model can run the graph."""
    return title in GRAPHS or (title in FLOW_GRAPHS and has_flow_model())


def has_flow_model() -> bool:
    stored = PACK / "small_model" / "weights"
    return all((stored / f"{name}.safetensors").is_file() for name in FLOW_WEIGHTS)


def for_small_model(title: str, graph: Json) -> Json:
    """A copy of the graph, in the form that the page saves, with what the small model needs."""
    if title in FLOW_GRAPHS:
        return for_small_flow_model(graph)
    graph = with_our_picture(graph)
    for node in graph["nodes"]:
        kind, values = node["type"], node.get("widgets_values")
        if kind == "CheckpointLoaderSimple":
            values[0] = Path(TRAINED_CHECKPOINT).name
        elif kind == "PeRFlowApplyDelta":
            values[0] = Path(TRAINED_DELTA).name
        elif kind == "CLIPTextEncode":
            values[0] = SMALL["prompt"] if node.get("title") == "Positive prompt" else SMALL["negative"]
        for place in SIZES.get(kind, ()):
            values[place] //= SMALLER
        if kind in GUIDANCE:
            values[GUIDANCE[kind]] = SMALL["cfg" if values[GUIDANCE[kind]] < PERFLOWS_OWN else "base_cfg"]
        words = GRAPHS[title].get(node.get("title") or kind, [])
        if words:
            values[: len(words)] = words
    return graph


def for_small_flow_model(graph: Json) -> Json:
    """The same for the flow model, with its delta in use."""
    graph = copy.deepcopy(graph)
    made_by = {node["id"]: node["type"] for node in graph["nodes"]}
    from_delta = {link[0] for link in graph["links"] if made_by[link[1]] in ("PeRFlowApplyDelta", TRAINING)}
    for node in graph["nodes"]:
        kind, values = node["type"], node.get("widgets_values")
        if kind == "CheckpointLoaderSimple":
            values[0] = Path(FLOW_CHECKPOINT).name
        elif kind == "PeRFlowApplyDelta":
            node["mode"], values[0] = 0, Path(FLOW_DELTA).name
        elif kind == "CLIPTextEncode":
            values[0] = SMALL["prompt"] if node.get("title") == "Positive prompt" else SMALL["negative"]
        elif kind == "KSampler":
            accelerated = node["inputs"][0]["link"] in from_delta
            values[GUIDANCE[kind]] = SMALL["cfg"] if accelerated else FLOW_BASE_CFG
        elif kind in LEFT_OUT:
            node["mode"] = MUTED
        elif kind in FLOW_SIZE:
            values[: len(FLOW_SIZE[kind])] = FLOW_SIZE[kind]
    return graph


def with_trained_delta(prompt: Json) -> Json:
    """A graph for the API in which the stored delta takes the place of its training."""
    trainers = {name for name, node in prompt.items() if node["class_type"] == TRAINING}
    for name in trainers:
        inputs = {"model": prompt[name]["inputs"]["model"], "delta_name": Path(FLOW_DELTA).name, "strength": 1.0}
        inputs |= {"prediction_type": "auto", "windows": 0, "align_steps": True}
        prompt[name] = {"class_type": "PeRFlowApplyDelta", "inputs": inputs}
    for node in prompt.values():
        for key, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in trainers:
                node["inputs"][key] = [value[0], 0]
    return prompt


def with_our_picture(graph: Json) -> Json:
    """A copy of the graph that loads the picture which the small model is given."""
    graph = copy.deepcopy(graph)
    for node in graph["nodes"]:
        if node["type"] == "LoadImage":
            node["widgets_values"][0] = DRAWN
    return graph


def pictures(server: ComfyServer, graph: Json) -> list[Image.Image]:
    """What the graph's Save Image nodes save, from left to right."""
    from trial.server import to_api

    saving = [node for node in graph["nodes"] if node["type"] == "SaveImage"]
    outputs = server.run(with_trained_delta(to_api(graph, server.object_info())))["outputs"]
    found = []
    for node in sorted(saving, key=lambda node: node["pos"][0]):
        found += [Image.open(io.BytesIO(server.image(**image))) for image in outputs[str(node["id"])]["images"]]
    return [picture.convert("RGB") for picture in found]


def over(card: Image.Image, made: list[Image.Image], share: float = 0.5) -> Image.Image:
    """The card with the pictures in a row over its lower right corner, at most that share of its height."""
    card, edge = card.copy(), 8
    side = round(min(share * card.height, (card.width - edge) / len(made) - edge))
    top = card.height - side - 2 * edge
    for i, picture in enumerate(reversed(made)):
        left = card.width - (i + 1) * (side + edge) - edge
        frame = Image.new("RGB", (side + 2 * edge, side + 2 * edge), "white")
        frame.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (edge, edge))
        card.paste(frame, (left, top))
    return card


def users_of_types(graphs: Iterable[Json]) -> Counter[str]:
    """Node type -> how many graphs have it."""
    return Counter(kind for graph in graphs for kind in {node["type"] for node in graph["nodes"]})


def most_telling_part(nodes: list[Json], groups: list[Json], used_by: Counter[str]) -> Box:
    """The box around neighbouring groups in which there is most, for its size, that few other graphs have."""
    nodes = [node for node in nodes if "Note" not in node["type"]]
    loose = [node for node in nodes if not any(inside(node["box"], group["box"]) for group in groups)]
    parts = sorted(part["box"] for part in (*groups, *loose))
    boxes = [around(parts[i : j + 1]) for i in range(len(parts)) for j in range(i + 1, len(parts))]

    def worth(box: Box) -> float:
        rare = sum(1 / used_by[node["type"]] for node in nodes if inside(node["box"], box))
        return rare / max(box[2] - box[0], box[3] - box[1])

    return max(boxes or [around(parts)], key=worth)


def around(boxes: Sequence[Box]) -> Box:
    """The box around them all, with an edge."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return [min(lefts) - EDGE, min(tops) - EDGE, max(rights) + EDGE, max(bottoms) + EDGE]


def inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
