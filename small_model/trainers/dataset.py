"""Drawn pictures with their captions and latents, made once and kept in a folder."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..networks.autoencoder import Decoder, Encoder, pair_of
from ..networks.storage import averaged
from ..scenes.picture import SIZE, TRAINING, picture
from ..scenes.styles import styled
from .devices import as_tensor, placed, processes
from .training_loop import save

AUTOENCODER, DECODER = "autoencoder.pt", "decoder.pt"  # states of trainings, in their folder
PART = 256  # pictures that a process draws at once


def pictures_of(folder: Path, count: int) -> tuple[np.ndarray, list[str]]:
    """The first `count` pictures [count, 128, 128, 3] uint8 and their captions, drawn unless the folder has them."""
    pixels, words = folder / f"pictures-{count}.npy", folder / f"captions-{count}.json"
    if not words.exists() and processes().is_main_process:
        np.lib.format.open_memmap(pixels, "w+", np.uint8, (count, SIZE, SIZE, 3)).flush()
        parts = [range(first, min(first + PART, count)) for first in range(0, count, PART)]
        with ProcessPoolExecutor() as pool:
            captions = [caption for part in pool.map(_draw_part, [pixels] * len(parts), parts) for caption in part]
        words.write_text(json.dumps(captions), encoding="utf-8")
    processes().wait_for_everyone()
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
def latents_of(folder: Path, count: int, style: str | None = None) -> tuple[Tensor, list[str]]:
    """The latents [count, 4, 16, 16] of the drawn pictures, in that style, and the captions; made unless they exist."""
    pictures, captions = pictures_of(folder, count)
    name, group = f"latents-{style}-{count}" if style else f"latents-{count}", processes()
    file, parts = folder / f"{name}.pt", [folder / f"{name}-{i}.pt" for i in range(group.num_processes)]
    if not file.exists():
        mine = np.array_split(np.arange(count), group.num_processes)[group.process_index]
        encoder, _ = trained_autoencoder(folder)
        latents = []
        with ProcessPoolExecutor() as pool:
            for batch in np.array_split(mine, max(1, len(mine) // 50)):
                drawn = pictures[batch]
                if style:
                    drawn = np.stack(list(pool.map(styled, drawn, repeat(style), chunksize=25)))
                latents.append(encoder(as_tensor(drawn)).half().cpu())
        save(torch.cat(latents), parts[group.process_index])
        group.wait_for_everyone()
        if group.is_main_process:
            save(torch.cat([torch.load(part, weights_only=True) for part in parts]), file)
            for part in parts:
                part.unlink()
        group.wait_for_everyone()
    return torch.load(file, weights_only=True), captions


def trained_autoencoder(folder: Path) -> tuple[Encoder, Decoder]:
    """The narrow autoencoder from its training's state, on the device; its decoder from where that was trained on.

    Raises ValueError for a decoder that was trained on for another encoder.
    """
    encoder, decoder = pair_of(*averaged(folder / AUTOENCODER, "encoder", "decoder"))
    if (later := folder / DECODER).is_file():
        before = torch.load(later, weights_only=True, mmap=True, map_location="cpu")["encoder"]
        if any(not torch.equal(before[name], weight) for name, weight in encoder.state_dict().items()):
            raise ValueError(
                f"{later} was trained for another encoder than that of {AUTOENCODER}, expected the same: take it away, "
                "or bring its autoencoder back."
            )
        decoder.load_state_dict(averaged(later, "decoder")[0])
    return placed(encoder).eval().requires_grad_(False), placed(decoder).eval().requires_grad_(False)
