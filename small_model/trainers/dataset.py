"""Drawn pictures with their captions and latents, made once and kept in a folder."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..networks.autoencoder import Decoder, Encoder
from ..networks.storage import averaged
from ..scenes.numbered import TRAINING, picture
from ..scenes.picture import SIZE
from . import distributed
from .device import as_tensor, placed
from .training_loop import save

PART = 256  # pictures that a process draws at once


def pictures_of(folder: Path, count: int) -> tuple[np.ndarray, list[str]]:
    """The first `count` pictures [count, 128, 128, 3] uint8 and their captions, drawn unless the folder has them."""
    pixels, words = folder / f"pictures-{count}.npy", folder / f"captions-{count}.json"
    if not words.exists() and distributed.RANK == 0:
        np.lib.format.open_memmap(pixels, "w+", np.uint8, (count, SIZE, SIZE, 3)).flush()
        parts = [range(first, min(first + PART, count)) for first in range(0, count, PART)]
        with ProcessPoolExecutor() as pool:
            captions = [caption for part in pool.map(_draw_part, [pixels] * len(parts), parts) for caption in part]
        words.write_text(json.dumps(captions), encoding="utf-8")
    distributed.barrier()
    return np.load(pixels, mmap_mode="c"), json.loads(words.read_text(encoding="utf-8"))


def _draw_part(file: Path, part: range) -> list[str]:
    """Draw some of the pictures into the file; their captions."""
    pictures = np.load(file, mmap_mode="r+")
    captions = []
    for i in part:
        pictures[i], caption = picture(TRAINING + i)
        captions.append(caption)
    return captions


@torch.no_grad()
def latents_of(folder: Path, count: int) -> tuple[Tensor, list[str]]:
    """The latents [count, 4, 16, 16] of the drawn pictures, made unless the folder has them, and their captions."""
    pictures, captions = pictures_of(folder, count)
    file = folder / f"latents-{count}.pt"
    parts = [folder / f"latents-{count}-{i}.pt" for i in range(distributed.WORLD_SIZE)]
    if not file.exists():
        mine = np.array_split(np.arange(count), distributed.WORLD_SIZE)[distributed.RANK]
        encoder, _ = trained_autoencoder(folder / "autoencoder.pt")
        batches = np.array_split(mine, max(1, len(mine) // 50))
        latents = [encoder(as_tensor(pictures[batch])).half().cpu() for batch in batches]
        save(torch.cat(latents), parts[distributed.RANK])
        distributed.barrier()
        if distributed.RANK == 0:
            save(torch.cat([torch.load(part, weights_only=True) for part in parts]), file)
            for part in parts:
                part.unlink()
        distributed.barrier()
    return torch.load(file, weights_only=True), captions


def trained_autoencoder(file: Path) -> tuple[Encoder, Decoder]:
    """The narrow autoencoder from its training's state, on the device."""
    encoder, decoder = Encoder(), Decoder()
    for module, weights in zip((encoder, decoder), averaged(file, "encoder", "decoder"), strict=True):
        module.load_state_dict(weights)
        placed(module).eval().requires_grad_(False)
    return encoder, decoder
