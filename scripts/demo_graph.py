"""The demo's graph, the first of workflows/ with the options of the command line, and the sheet beside its picture.

The sheet shows what the base model and PeRFlow make of the same noise in few steps and many. The base model is sampled
as everybody samples it, by KSampler with euler; PeRFlow by this pack's nodes.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo_options import SMALL
from environment import PACK, UserError, say
from sampled_sheet import Pictures, Sheet
from trial.picture_graph import MANY, PictureGraph
from trial.server import ComfyServer, to_api

WORKFLOW = PACK / "workflows" / "17 SD1.5 all nodes.json"
ENLARGED = 3  # times, where the small model draws
Prompt = dict[str, dict[str, Any]]

PROMPTS = (  # by the rule of small_model/choose_prompts.py: those that show what is usual
    SMALL["prompt"],
    "a small white house on a hill at noon, clear, on the right",
    "a large green castle on a hill at noon, cloudy, on the right",
    "a balloon above a cliff at sunset, rainy, in the middle",
)
COLUMNS = (("base", 4), ("base", MANY), ("PeRFlow", 4), ("PeRFlow", 8))  # model, steps


def read(info: dict[str, Any], log: Path) -> Prompt:
    """The graph in the form that the server runs. Raises UserError where a node is missing."""
    prompt: Prompt = to_api(json.loads(WORKFLOW.read_text(encoding="utf-8")), info)
    missing = sorted({node["class_type"] for node in prompt.values()} - info.keys())
    if missing:
        raise UserError(f"ComfyUI runs, but has no node {', '.join(missing)}: see why this pack did not load in {log}.")
    return prompt


def fill_in(prompt: Prompt, options: argparse.Namespace, checkpoint: str, delta: str) -> None:
    """Put the options into the graph; what was not given stays as the workflow has it."""
    guider = prompt[only(prompt, "CFGGuider")]["inputs"]
    size = prompt[only(prompt, "EmptyLatentImage")]["inputs"]
    guider["cfg"] = options.cfg
    size["width"], size["height"] = options.size
    prompt[only(prompt, "PeRFlowWindowSchedule")]["inputs"]["steps"] = options.steps
    prompt[only(prompt, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = checkpoint
    prompt[only(prompt, "PeRFlowApplyDelta")]["inputs"]["delta_name"] = delta
    if options.seed is not None:
        prompt[only(prompt, "RandomNoise")]["inputs"]["noise_seed"] = options.seed
    for link, text in (("positive", options.prompt), ("negative", options.negative)):
        if text is not None:
            prompt[guider[link][0]]["inputs"]["text"] = text
    if options.small:
        saved = prompt[only(prompt, "SaveImage")]["inputs"]
        how = dict(image=saved["images"], upscale_method="lanczos", scale_by=float(ENLARGED))
        prompt["enlarge"] = {"class_type": "ImageScaleBy", "inputs": how}
        saved["images"] = ["enlarge", 0]


def only(prompt: Prompt, kind: str) -> str:
    """The id of the one node of that kind."""
    found = [name for name, node in prompt.items() if node["class_type"] == kind]
    if len(found) != 1:
        raise UserError(f"{WORKFLOW.name} has {len(found)} {kind} nodes where the demo needs one: restore the file.")
    return found[0]


def make_sheet(server: ComfyServer, prompt: Prompt, base_cfg: float) -> bytes:
    """The sheet for the demo's graph as a PNG; says what stands where on it."""
    graph, texts, cfg = graph_like(prompt)
    say(f"Making the sheet: {len(texts)} prompts, each sampled in {len(COLUMNS)} ways.")
    sheet = sheet_of(graph, texts, base_cfg, cfg)
    pictures = sampled(server, graph, sheet)
    png = io.BytesIO()
    sheet.drawn(pictures, ENLARGED).save(png, "PNG")
    say(f"{sheet.words}: {sheet.differences(pictures)}.")
    return png.getvalue()


def graph_like(prompt: Prompt) -> tuple[PictureGraph, list[str], float]:
    """A graph with the demo's files, size and seed; the prompts of the rows, the first of them the demo's; its CFG."""

    def inputs(kind: str) -> dict[str, Any]:
        return prompt[only(prompt, kind)]["inputs"]

    guider, latent = inputs("CFGGuider"), inputs("EmptyLatentImage")
    positive, negative = (prompt[guider[link][0]]["inputs"]["text"] for link in ("positive", "negative"))
    texts = [positive, *(text for text in PROMPTS if text != positive)][: len(PROMPTS)]
    graph = PictureGraph(
        inputs("CheckpointLoaderSimple")["ckpt_name"],
        inputs("PeRFlowApplyDelta")["delta_name"],
        (latent["width"], latent["height"]),
        inputs("RandomNoise")["noise_seed"],
        negative,
    )
    return graph, texts, guider["cfg"]


def sheet_of(graph: PictureGraph, texts: Sequence[str], base_cfg: float, cfg: float) -> Sheet:
    """Row r has the noise of seed + r in every column."""
    ways = {
        "base": lambda r, text, steps: graph.sampled(graph.base(), text, steps, base_cfg, scheduler="normal", row=r),
        "PeRFlow": lambda r, text, steps: graph.windowed(text, steps, cfg, row=r),
    }
    rows = {text: [ways[model](r, text, steps) for model, steps in COLUMNS] for r, text in enumerate(texts)}
    columns = [f"{model}, {steps} steps" for model, steps in COLUMNS]
    words = (
        "The sheet has one row for each prompt and one column for each way to sample it, all from the same noise. The "
        f"difference to {columns[1]}, as root mean square in levels of 0 to 255"
    )
    return Sheet("Few steps and many", words, columns, rows, to=1)


def sampled(server: ComfyServer, graph: PictureGraph, sheet: Sheet) -> Pictures:
    """The sheet's pictures; says which one is being sampled."""
    labels = {
        graph.nodes[picture[0]]["inputs"]["samples"][0]: f"  row {r}: {column}"
        for r, row in enumerate(sheet.rows.values(), 1)
        for column, picture in zip(sheet.columns, row, strict=True)
    }

    def on_event(kind: str, data: dict[str, Any]) -> None:
        if kind == "executing" and data["node"] in labels:
            say(labels[data["node"]])

    return sheet.sampled(server, graph, on_event)
