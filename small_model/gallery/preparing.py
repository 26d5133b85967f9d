"""What the sheets need beside the model: a drawing to start from, low-rank deltas, and a LoRA of another style."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from environment import say
from PIL import Image
from trial.picture_graph import PictureGraph
from trial.server import ComfyServer

from small_model.scenes.picture import draw, picture
from small_model.scenes.words import Scene

from .sheets import DRAWN, RANKS, Prepared

STYLE = "neon"
PICTURES, STEPS, BATCH, RATE, RANK = 48, 200, 4, 1e-3, 16  # of the LoRA's training
HELD_OUT = 15_000_000  # numbers of drawings that the small model never saw
DRAWING = Scene("house", "hill", "noon", "clear", "red", "medium", "middle")


def draw_house(folder: Path) -> None:
    draw(DRAWING, np.random.default_rng(3)).save(folder / DRAWN)


def draw_inputs(folder: Path) -> None:
    """Put the drawing, and the LoRA's pictures with their captions, into the server's input folder."""
    draw_house(folder)
    style = folder / STYLE
    style.mkdir()
    for i in range(PICTURES):
        pixels, caption = picture(HELD_OUT + i, STYLE)
        Image.fromarray(pixels).save(style / f"{i:03}.png")
        (style / f"{i:03}.txt").write_text(caption, encoding="utf-8")


def prepare(server: ComfyServer, checkpoint: str, delta: str, with_lora: bool) -> Prepared:
    """Make the low-rank deltas, and the LoRA if with_lora, on the server."""
    graph = PictureGraph(checkpoint, delta)
    how = dict(energy=0.0, prediction_type="auto", windows=4)
    pair = dict(model_perflow=graph.perflow(), model_base=graph.base())
    for rank in RANKS:
        graph.add("PeRFlowExtractDelta", filename_prefix=f"rank{rank}", rank=rank, **how, **pair)
    say(f"Extracting the delta at rank {', '.join(map(str, RANKS))}.")
    server.run(graph.nodes)
    written = server.base / "output" / "perflow"
    low_rank = {rank: next(written.glob(f"rank{rank}*.safetensors")).name for rank in RANKS}
    return Prepared(train_lora(server, checkpoint) if with_lora else "", low_rank)


def train_lora(server: ComfyServer, checkpoint: str) -> str:
    """The name of a LoRA that the stock Train LoRA node makes of the pictures in that style."""
    say(f"Training a LoRA with {PICTURES} {STYLE} drawings, {STEPS} steps of {BATCH}.")
    graph = PictureGraph(checkpoint, "")
    dataset = graph.add("LoadImageTextDataSetFromFolder", folder=STYLE)
    loader = graph.base()[0]
    latents = graph.add("VAEEncode", pixels=dataset, vae=[loader, 2])
    texts = graph.add("CLIPTextEncode", clip=[loader, 1], text=[dataset[0], 1])
    training: dict[str, Any] = dict(
        batch_size=BATCH, grad_accumulation_steps=1, steps=STEPS, learning_rate=RATE, rank=RANK, optimizer="AdamW"
    )
    training |= dict(loss_function="MSE", seed=0, training_dtype="fp32", lora_dtype="fp32", algorithm="LoRA")
    training |= dict(checkpoint_depth=1, existing_lora="[None]")
    switches = ("quantized_backward", "gradient_checkpointing", "offloading", "bucket_mode", "bypass_mode")
    training |= dict.fromkeys(switches, False)
    lora = graph.add("TrainLoraNode", model=graph.base(), latents=latents, positive=texts, **training)
    graph.add("SaveLoRA", lora=lora, prefix=f"loras/{STYLE}", steps=[lora[0], 2])
    server.run(graph.nodes)
    saved = next((server.base / "output" / "loras").glob(f"{STYLE}*.safetensors"))
    target = server.base / "models" / "loras" / saved.name
    target.parent.mkdir(exist_ok=True)
    shutil.copy(saved, target)
    return target.name
