"""The demo's graph: the first of workflows/ with the options of the command line."""

import argparse
import json
from pathlib import Path
from typing import Any

from environment import PACK, UserError
from trial.server import to_api

WORKFLOW = PACK / "workflows" / "PeRFlow SD1.5 text to image.json"
ENLARGED = 3  # times, where the small model draws
Prompt = dict[str, dict[str, Any]]


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
