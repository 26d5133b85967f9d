"""Does the wide checkpoint, loaded as users load it, give the pictures that the narrow model gives?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from environment import UserError

from . import sampling
from .cells import BASE, Cell, Model

if TYPE_CHECKING:
    from .table import Table

COUNT, BATCH = 64, 8
LIMIT = 2 / 255  # of a picture's mean difference; file and maths are 16 bits in places


def check(comfyui: Any, table: Table) -> str:
    """A sentence with the differences of 64 pictures, by Load Checkpoint, CLIP Text Encode and VAE Decode.

    Raises UserError where one picture's mean difference is above 2 levels of 256.
    """
    cell = Cell(Model(BASE, table.models.has_delta()), "euler", 4)
    model, clip, vae = load(comfyui, table.models.folder, cell.model.delta)
    cfg = table.guidance.of(cell.model)
    encode = comfyui.nodes["CLIPTextEncode"]()
    (negative,) = encode.encode(clip, "")
    apart = []
    for start in range(0, COUNT, BATCH):
        numbers = range(start, start + BATCH)
        texts = [encode.encode(clip, prompt)[0][0][0] for prompt in table.judge.prompts(numbers)]
        positive, noise = [[torch.cat(texts), {}]], sampling.noise_of(numbers)
        samples = sampling.sample(comfyui.nodes, model, cell, noise, positive, negative, cfg)
        (pictures,) = comfyui.nodes["VAEDecode"]().decode(vae, {"samples": samples})
        narrow = table.judge.decode(table.sample(cell, numbers)).cpu().permute(0, 2, 3, 1)
        apart.append((pictures.detach() - narrow).abs().mean((1, 2, 3)))
    worst, mean = float(torch.cat(apart).max()), float(torch.cat(apart).mean())
    result = (
        f"{COUNT} pictures of the wide checkpoint, {cell.model.name}, {cell.sampler}, {cell.steps} steps: the mean "
        f"difference to the narrow model's is {mean:.2g} where white is 1, {worst:.2g} in the worst picture"
    )
    if worst > LIMIT:
        raise UserError(f"{result}, expected at most {LIMIT:.2g}: the widening or the stored weights are wrong.")
    return result + "."


def load(comfyui: Any, weights: Path, delta: bool) -> tuple[Any, Any, Any]:
    """MODEL, with the delta applied, CLIP and VAE of the widened weights, by Load Checkpoint and the pack's node."""
    from trial.small_models import trained

    models = comfyui.base / "models"
    trained.make_trained_checkpoint(models / "checkpoints" / "wide.safetensors", weights)
    model, clip, vae = comfyui.nodes["CheckpointLoaderSimple"]().load_checkpoint("wide.safetensors")
    if delta:
        trained.make_trained_delta(models / "perflow" / "wide-delta.safetensors", weights)
        model = sampling.with_delta(comfyui.nodes, model, "wide-delta.safetensors")
    return model, clip, vae
