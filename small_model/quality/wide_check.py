"""Does the checkpoint, loaded as users load it, give the pictures that the table's model gives?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from environment import UserError

from . import sampling
from .cells import BASE, DELTA, Cell, Model

if TYPE_CHECKING:
    from .stored_models import StoredModels
    from .table import Table

COUNT, BATCH = 64, 8
LIMIT = 2 / 255  # of a picture's mean difference; file and maths are 16 bits in places


def check(comfyui: Any, table: Table) -> str:
    """A sentence with the differences of 64 pictures, by Load Checkpoint, CLIP Text Encode and VAE Decode.

    Raises UserError where one picture's mean difference is above 2 levels of 256.
    """
    cell = Cell(Model(BASE, DELTA if DELTA in table.models.deltas() else ""), "euler", 4)
    model, clip, vae = load(comfyui, table.models, bool(cell.model.delta))
    cfg = table.guidance.of(cell.model)
    encode = comfyui.nodes["CLIPTextEncode"]()
    (negative,) = encode.encode(clip, "")
    apart = []
    for start in range(0, COUNT, BATCH):
        numbers = range(start, start + BATCH)
        texts = [encode.encode(clip, prompt)[0][0] for prompt in table.judge.prompts(numbers)]
        positive, noise = [sampling.together(texts)], table.models.noise(numbers)
        samples = sampling.sample(comfyui.nodes, model, cell, noise, positive, negative, cfg, table.models.family)
        (pictures,) = comfyui.nodes["VAEDecode"]().decode(vae, {"samples": samples})
        ours = table.judge.decode(table.sample(cell, numbers)).cpu().permute(0, 2, 3, 1)
        apart.append((pictures.detach() - ours).abs().mean((1, 2, 3)))
    worst, mean = float(torch.cat(apart).max()), float(torch.cat(apart).mean())
    result = (
        f"{COUNT} pictures of the checkpoint, {cell.model.name}, {cell.sampler}, {cell.steps} steps: the mean "
        f"difference to the table's is {mean:.2g} where white is 1, {worst:.2g} in the worst picture"
    )
    if worst > LIMIT:
        raise UserError(f"{result}, expected at most {LIMIT:.2g}: the checkpoint or the stored weights are wrong.")
    return result + "."


def load(comfyui: Any, models: StoredModels, delta: bool) -> tuple[Any, Any, Any]:
    """MODEL, with the delta applied, CLIP and VAE, by Load Checkpoint and the pack's node."""
    folder = comfyui.base / "models"
    models.checkpoint(folder / "checkpoints" / "whole.safetensors")
    model, clip, vae = comfyui.nodes["CheckpointLoaderSimple"]().load_checkpoint("whole.safetensors")
    if delta:
        models.delta(folder / "perflow" / "whole-delta.safetensors")
        model = sampling.with_delta(comfyui.nodes, model, "whole-delta.safetensors")
    return model, clip, vae
