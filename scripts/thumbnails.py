"""Thumbnails of the example graphs: large words, and what the graph makes or does.

The small trained models make the pictures. For them a graph gets their files, words, size and guidance; nodes, links
and steps stay. Where they cannot run a graph, its thumbnail shows the stages that it has.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from demo_options import SMALL
from PIL import Image, ImageDraw, ImageFont
from trial.small_models.tables import FLOW_CHECKPOINT, FLOW_DELTA, TRAINED_CHECKPOINT, TRAINED_DELTA

from small_model.gallery.sheets import DRAWN

if TYPE_CHECKING:
    from trial.server import ComfyServer

Json = dict[str, Any]


class Card(NamedTuple):
    """The large words; what is said of each picture, or, where there is none, the stages from above to below."""

    words: str
    shown: tuple[str, ...]
    values: dict[str, list[str]] | None = None  # title or type of a node -> its first values, for the small model


SOURCE = "a red house on a hill at noon"
# Of every graph. Those with values are made by the small models.
CARDS = {
    "01 SD1.5 text to image": Card("SD1.5\n4 steps", ("drawn by the small model",), {}),
    "02 SDXL text to image": Card("SDXL\n6 steps", ("SDXL with PeRFlow", "KSampler", "1024 x 1024")),
    "03 SD2.1 merged checkpoint": Card("SD2.1\n8 steps", ("merged model", "KSampler", "768 x 768")),
    "04 Small model without downloads": Card("No download", ("the small model, 4 steps",), {}),
    "05 SD1.5 compared with the base": Card("Compare", ("base, 4", "base, 25", "PeRFlow, 4"), {}),
    "06 SD1.5 with LoRAs": Card("LoRAs\n4 steps", ("SD1.5 and the delta", "your LoRAs", "KSampler")),
    "07 SD1.5 ControlNet": Card("ControlNet\n4 steps", ("depth map, edges or pose", "ControlNet", "KSampler")),
    "08 SD1.5 IP-Adapter and ControlNet": Card(
        "IP-Adapter\nControlNet", ("a picture as a prompt", "a depth map", "4 steps")
    ),
    "09 SDXL IP-Adapter": Card("IP-Adapter\nSDXL", ("a picture as a prompt", "SDXL with PeRFlow", "6 steps")),
    "10 SD1.5 image to image": Card(
        "Image to image", ("3 steps",), {"Positive prompt": ["a red house on a hill at night, snowy"]}
    ),
    "11 SD1.5 inpainting": Card("Inpainting", ("4 steps",), {"Positive prompt": ["a green tree on a hill at noon"]}),
    "12 SD1.5 edit by words": Card(
        "Edit by words",
        ("source", "castle", "night", "snowy"),
        {
            "PeRFlowPromptToPrompt": [
                SMALL["prompt"],
                "\n".join(
                    SMALL["prompt"].replace(*words)
                    for words in (("lighthouse", "castle"), ("sunset", "night"), ("cloudy", "snowy"))
                ),
            ]
        },
    ),
    "13 SD1.5 edit a photo": Card(
        "Edit a photo",
        ("made again", "blue", "snowy"),
        {
            "Source prompt": [SOURCE],
            "PeRFlowPromptToPrompt": ["", f"a blue house on a hill at noon\n{SOURCE}, snowy"],
        },
    ),
    "14 SD1.5 refiner to 1024": Card("Refine\nto 1024", ("your picture", "ControlNet-Tile", "4 steps")),
    "15 SD1.5 text to image then refiner": Card("512, then\n1024", ("4 steps at 512", "ControlNet-Tile", "4 more")),
    "16 SD1.5 hand-over to the base": Card("Hand over", ("2 steps of PeRFlow, 10 of the base",), {}),
    "17 SD1.5 all nodes": Card("All nodes", ("schedule, sampler and plot",), {}),
    "18 Train a delta of a flow model": Card("Train", ("CFG 1", "CFG 2", "delta, CFG 1"), {}),
    "19 SD3.5 four steps": Card("SD3.5\n4 steps", ("by a small model of this kind",), {}),
    "20 Z-Image four steps": Card("Z-Image\n4 steps", ("Z-Image", "your delta", "KSampler")),
    "21 Qwen-Image four steps": Card("Qwen-Image\n4 steps", ("Qwen-Image", "your delta", "KSampler")),
    "22 Flux four steps": Card("Flux\n4 steps", ("Flux", "your delta", "KSampler")),
    "23 Wan 2.2 video in four steps": Card("Wan 2.2\n4 steps", ("high noise, 2 steps", "low noise, 2 steps", "video")),
    "24 Train a delta": Card("Train\nSD1.5", ("pictures by the base", "Train PeRFlow Delta", "4 steps with it")),
    "25 Make my model fast": Card(
        "Make my\nmodel fast", ("your model and LoRA", "from another delta", "a delta of its own")
    ),
    "26 Make an SDXL delta": Card("Make\na delta", ("SDXL with PeRFlow", "minus SDXL", "a delta file")),
    "27 InstaFlow one step": Card("InstaFlow\n1 step", ("InstaFlow", "KSampler", "512 x 512")),
    "28 InstaFlow ControlNet": Card("ControlNet\n1 step", ("edges", "InstaFlow", "512 x 512")),
    "29 InstaFlow then SDXL refiner": Card("1 step,\nthen refine", ("InstaFlow at 512", "SDXL refiner", "1024 x 1024")),
    "30 InstaFlow film": Card("Film\nof 16", ("noise of two seeds", "InstaFlow, 1 step each", "16 frames")),
    "31 2-Rectified-Flow eight steps": Card("8 steps\nwith CFG", ("2-Rectified-Flow", "KSampler", "512 x 512")),
    "32 PCM SD1.5": Card("PCM SD1.5\n4 steps", ("SD1.5", "PCM's LoRA", "Phase Schedule")),
    "33 PCM SDXL": Card("PCM SDXL\n4 steps", ("SDXL", "PCM's LoRA", "Phase Schedule")),
    "34 PCM SD3 deterministic": Card("PCM SD3\neuler", ("SD3", "PCM's LoRA", "4 steps")),
    "35 PCM SD3 stochastic": Card("PCM SD3\nlcm", ("SD3", "PCM's LoRA", "4 steps")),
    "36 Text to 3D": Card("Text to 3D", ("a picture in 4 steps", "Hunyuan3D 2", "a mesh")),
    "37 Text to 3D from Wonder3D views": Card("3D from\n4 views", ("a picture", "Wonder3D's views", "Hunyuan3D 2")),
    "38 Text to 3D with TripoSplat": Card("3D splats", ("a picture in 4 steps", "TripoSplat", "splats and mesh")),
    "39 Text to 3D with TripoSR": Card("3D by\nTripoSR", ("a picture in 4 steps", "TripoSR", "a coloured mesh")),
    "40 Wonder3D twelve views": Card("12 views", ("a picture", "Wonder3D, 4 steps", "6 normals, 6 colours")),
}
SIDE = 640  # pixels of a thumbnail
PAPER, INK, QUIET, BOX, ARROW = "#171b22", "#ffffff", "#b9c4d3", "#2b5a78", "#7fb2d6"
SMALLER = 4  # times: the graphs are for 512 pixels
# Places of pixels among a node's values, and the place of CFG.
SIZES = {"EmptyLatentImage": (0, 1), "ImageScale": (1, 2), "SolidMask": (1, 2), "MaskComposite": (0, 1)}
GUIDANCE = {"KSampler": 3, "CFGGuider": 0}
NO_DOWNLOADS = "04 Small model without downloads"  # has the small model's settings

# Graphs of the small flow model's layout.
FLOW_GRAPHS = ("19 SD3.5 four steps", "18 Train a delta of a flow model")
FLOW_BASE_CFG = 2.0
FLOW_PROMPT = "a small orange house in the mountains at sunset, rainy"
FLOW_SIZE = {"EmptySD3LatentImage": (128, 128, 1)}
TRAINING = "PeRFlowTrainDelta"
LEFT_OUT = ("PreviewImage", "LossGraphNode")  # what they show of the training, which is done already
MUTED = 2


def thumbnail(title: str, made: Sequence[Image.Image]) -> Image.Image:
    """The card, with these pictures or the stages of the graph."""
    card = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen, words = ImageDraw.Draw(card), CARDS[title].words
    lines = len(words.splitlines())
    top = 40 + 84 * lines
    pen.multiline_text((SIDE / 2, 28), words, INK, ImageFont.load_default(76), "ma", spacing=8, align="center")
    if made:
        _draw_pictures(card, top, CARDS[title].shown, made)
    else:
        _draw_stages(card, top, CARDS[title].shown)
    return card


def _draw_pictures(card: Image.Image, top: float, names: Sequence[str], made: Sequence[Image.Image]) -> None:
    """In rows of two, or all in one row of three; each has its name below."""
    pen, font, gap, name = ImageDraw.Draw(card), ImageFont.load_default(30), 16, 44
    across = min(len(made), 3) if len(made) != 4 else 2
    rows = -(-len(made) // across)
    side = round(min((SIDE - gap * (across + 1)) / across, (SIDE - top - gap) / rows - name - gap / 2))
    left = (SIDE - across * side - (across - 1) * gap) / 2
    top += (SIDE - gap - top - rows * (side + name)) / 2
    for i, (picture, text) in enumerate(zip(made, names, strict=True)):
        x, y = round(left + i % across * (side + gap)), round(top + i // across * (side + name))
        card.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        pen.text((x + side / 2, y + side + name / 2), text, QUIET, font, "mm")


def _draw_stages(card: Image.Image, top: float, stages: Sequence[str]) -> None:
    """Two or more, from above to below."""
    pen, font, edge, tall = ImageDraw.Draw(card), ImageFont.load_default(40), 40, 92
    apart = (SIDE - edge - top - tall) / (len(stages) - 1)
    for i, stage in enumerate(stages):
        y = top + i * apart
        pen.rounded_rectangle((edge, y, SIDE - edge, y + tall), 18, BOX)
        pen.text((SIDE / 2, y + tall / 2), stage, INK, font, "mm")
        if i:
            pen.line((SIDE / 2, y - apart + tall, SIDE / 2, y - 16), ARROW, 6)
            pen.polygon([(SIDE / 2 - 15, y - 20), (SIDE / 2 + 15, y - 20), (SIDE / 2, y - 1)], ARROW)


def for_small_model(title: str, graph: Json) -> Json:
    """A copy of the graph, in the form that the page saves, with what the small model needs."""
    if title == NO_DOWNLOADS:
        return graph
    if title in FLOW_GRAPHS:
        return for_small_flow_model(graph)
    graph = with_our_picture(graph)
    values_of = CARDS[title].values or {}
    for node in graph["nodes"]:
        kind, values = node["type"], node.get("widgets_values")
        if kind == "CheckpointLoaderSimple":
            values[0] = Path(TRAINED_CHECKPOINT).name
        elif kind == "PeRFlowApplyDelta":
            values[0] = Path(TRAINED_DELTA).name
        elif kind == "CLIPTextEncode":
            values[0] = SMALL["prompt"] if node.get("title") == "Positive prompt" else ""
        for place in SIZES.get(kind, ()):
            values[place] //= SMALLER
        if kind in GUIDANCE and values[GUIDANCE[kind]] != 1:  # a photo is turned into noise without guidance
            values[GUIDANCE[kind]] = SMALL["cfg"]
        words = values_of.get(node.get("title") or kind, [])
        if words:
            values[: len(words)] = words
    return graph


def for_small_flow_model(graph: Json) -> Json:
    """The same for the flow model, with its delta in use."""
    graph = copy.deepcopy(graph)
    for node in graph["nodes"]:
        kind, values = node["type"], node.get("widgets_values")
        if kind == "CheckpointLoaderSimple":
            values[0] = Path(FLOW_CHECKPOINT).name
        elif kind == "PeRFlowApplyDelta":
            node["mode"], values[0] = 0, Path(FLOW_DELTA).name
        elif kind == "CLIPTextEncode":
            values[0] = FLOW_PROMPT if node.get("title") == "Positive prompt" else ""
        elif kind == "KSampler":
            values[GUIDANCE[kind]] = min(values[GUIDANCE[kind]], FLOW_BASE_CFG)
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
