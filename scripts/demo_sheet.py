"""The sheet beside the demo's picture: what the base model and PeRFlow make of the same noise in few steps and many.

The base model is sampled as everybody samples it, by KSampler with euler; PeRFlow by this pack's nodes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from demo_graph import ENLARGED, Prompt, only
from environment import say
from PIL import Image
from trial.server import ComfyServer

from perflow_core.drawing.picture_sheet import SENTENCES, draw_sheet

Pictures = list[list[Image.Image]]  # rows of a sheet, all of one size
PROMPTS = (
    "a lighthouse on a cliff at sunset",
    "a small red house on a hill at noon, cloudy, on the left",
    "a large purple castle in the mountains at night, clear",
    "a yellow balloon above the sea at dawn, in the middle",
)


class Column(NamedTuple):
    title: str
    perflow: bool
    steps: int


BASE_MANY = Column("base, 25 steps", False, 25)
COLUMNS = (
    Column("base, 4 steps", False, 4),
    BASE_MANY,
    Column("PeRFlow, 4 steps", True, 4),
    Column("PeRFlow, 8 steps", True, 8),
)


def make(server: ComfyServer, prompt: Prompt, base_cfg: float) -> bytes:
    """The sheet for the demo's graph as a PNG; says what stands where on it."""
    cells, texts = graph_like(prompt, base_cfg)
    say(f"Making the sheet: {len(texts)} prompts, each sampled in {len(COLUMNS)} ways.")
    pictures = run(server, cells, len(texts))
    png = io.BytesIO()
    draw(pictures, [column.title for column in COLUMNS], texts, ENLARGED).save(png, "PNG")
    say(description(pictures))
    return png.getvalue()


def graph_like(prompt: Prompt, base_cfg: float) -> tuple[Prompt, list[str]]:
    """The graph of all cells and the prompts of its rows; files, guidance, first prompt and seed are the demo's."""
    guider = prompt[only(prompt, "CFGGuider")]["inputs"]
    positive, negative = (prompt[guider[link][0]]["inputs"]["text"] for link in ("positive", "negative"))
    texts = [positive, *(text for text in PROMPTS if text != positive)][: len(PROMPTS)]
    checkpoint = prompt[only(prompt, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"]
    delta = prompt[only(prompt, "PeRFlowApplyDelta")]["inputs"]["delta_name"]
    latent = prompt[only(prompt, "EmptyLatentImage")]["inputs"]
    seed = prompt[only(prompt, "RandomNoise")]["inputs"]["noise_seed"]
    size, cfg = (latent["width"], latent["height"]), (base_cfg, guider["cfg"])
    return graph(checkpoint, delta, texts, negative, size, cfg, seed), texts


def run(server: ComfyServer, cells: Prompt, rows: int) -> Pictures:
    """The pictures of all cells; says which one is being sampled."""

    def on_event(kind: str, data: dict[str, Any]) -> None:
        r, _, c = (data.get("node") or "").removesuffix(" sample").partition(" ")
        if kind == "executing" and (data.get("node") or "").endswith(" sample"):
            say(f"  row {int(r) + 1}: {COLUMNS[int(c)].title}")

    outputs = server.run(cells, on_event)["outputs"]

    def picture(r: int, c: int) -> Image.Image:
        return Image.open(io.BytesIO(server.image(**outputs[f"{r} {c} picture"]["images"][0]))).convert("RGB")

    return [[picture(r, c) for c in range(len(COLUMNS))] for r in range(rows)]


def graph(
    checkpoint: str,
    delta: str,
    prompts: Sequence[str],
    negative: str,
    size: tuple[int, int],
    cfg: tuple[float, float],
    seed: int,
) -> Prompt:
    """All cells in the form that the server runs; the picture of row r and column c is the output of `r c picture`.

    Row r has the noise of seed + r in every column; cfg is the base model's and PeRFlow's.
    """
    nodes: Prompt = {}

    def add(name: str, kind: str, **inputs: Any) -> str:
        nodes[name] = {"class_type": kind, "inputs": inputs, "_meta": {"title": name}}
        return name

    loader = add("checkpoint", "CheckpointLoaderSimple", ckpt_name=checkpoint)
    sampling = dict(strength=1.0, prediction_type="auto", windows=0, align_steps=True, partial=False)
    add("PeRFlow", "PeRFlowApplyDelta", model=[loader, 0], delta_name=delta, **sampling)
    without = [add("negative", "CLIPTextEncode", clip=[loader, 1], text=negative), 0]
    empty = [add("empty", "EmptyLatentImage", width=size[0], height=size[1], batch_size=1), 0]
    add("euler", "PeRFlowSampler", solver="euler")
    for r, text in enumerate(prompts):
        prompt = [add(f"{r}", "CLIPTextEncode", clip=[loader, 1], text=text), 0]
        conditioning = dict(positive=prompt, negative=without)
        noise = add(f"{r} noise", "RandomNoise", noise_seed=seed + r)
        guider = add(f"{r} guider", "CFGGuider", model=["PeRFlow", 0], cfg=cfg[1], **conditioning)
        for c, column in enumerate(COLUMNS):
            name = f"{r} {c} sample"
            if column.perflow:
                grid = dict(steps=column.steps, denoise=1.0, end="zero", steps_per_window="")
                sigmas = [add(f"{r} {c} steps", "PeRFlowWindowSchedule", model=["PeRFlow", 0], **grid), 0]
                parts = dict(noise=[noise, 0], guider=[guider, 0], sampler=["euler", 0], sigmas=sigmas)
                add(name, "SamplerCustomAdvanced", **parts, latent_image=empty)
            else:
                how = dict(sampler_name="euler", scheduler="normal", steps=column.steps, denoise=1.0)
                how |= dict(cfg=cfg[0], seed=seed + r)
                add(name, "KSampler", model=[loader, 0], latent_image=empty, **conditioning, **how)
            decoded = add(f"{r} {c} decode", "VAEDecode", samples=[name, 0], vae=[loader, 2])
            add(f"{r} {c} picture", "PreviewImage", images=[decoded, 0])
    return nodes


def draw(pictures: Pictures, columns: Sequence[str], rows: Sequence[str], times: int) -> Image.Image:
    """The sheet, its pictures enlarged so many times."""
    width, height = (times * side for side in pictures[0][0].size)
    enlarged = [[picture.resize((width, height), Image.Resampling.LANCZOS) for picture in row] for row in pictures]
    return draw_sheet(enlarged, columns, rows, SENTENCES)


def differences(pictures: Pictures, to: int) -> list[float]:
    """Of every column to that one: root mean square, in levels of 0 to 255."""
    levels = np.array([[np.asarray(picture, float) for picture in row] for row in pictures])
    return [float(x) for x in np.sqrt(np.square(levels - levels[:, to : to + 1]).mean((0, 2, 3, 4)))]


def description(pictures: Pictures) -> str:
    """What stands where on the sheet, and how far each column is from the base model's 25 steps."""
    many = COLUMNS.index(BASE_MANY)
    away = differences(pictures, many)
    others = [f"{column.title}: {away[c]:.1f}" for c, column in enumerate(COLUMNS) if c != many]
    return (
        "The sheet has one row for each prompt and one column for each way to sample it, all from the same noise. The "
        f"difference to {BASE_MANY.title}, as root mean square in levels of 0 to 255: {'; '.join(others)}."
    )
