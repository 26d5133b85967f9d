"""What the autoencoder makes of the drawn pictures, made once and kept in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import together
from .dataset import pictures_of
from .device import as_tensor
from .keeping import save
from .states import autoencoder


@torch.no_grad()
def latents_of(folder: Path, count: int) -> tuple[Tensor, list[str]]:
    """The latents [count, 4, 16, 16] of the drawn pictures, made unless the folder has them, and their captions."""
    pictures, captions = pictures_of(folder, count)
    file = folder / f"latents-{count}.pt"
    parts = [folder / f"latents-{count}-{i}.pt" for i in range(together.PROCESSES)]
    if not file.exists():
        mine = np.array_split(np.arange(count), together.PROCESSES)[together.NUMBER]
        save(encoded(folder, pictures, mine), parts[together.NUMBER])
        together.wait()
        if together.NUMBER == 0:
            save(torch.cat([torch.load(part, weights_only=True) for part in parts]), file)
            for part in parts:
                part.unlink()
        together.wait()
    return torch.load(file, weights_only=True), captions


def encoded(folder: Path, pictures: np.ndarray, chosen: np.ndarray) -> Tensor:
    """The latents of the chosen pictures, float16."""
    encoder, _ = autoencoder(folder / "autoencoder.pt")
    found = []
    for some in np.array_split(chosen, max(1, len(chosen) // 50)):
        found.append(encoder(as_tensor(pictures[some])).half().cpu())
    return torch.cat(found)
