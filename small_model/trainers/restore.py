"""The weights in this repository as the trainings leave them, for what comes after a training.

`python -m small_model.trainers.restore FOLDER` writes FOLDER/autoencoder.pt and FOLDER/teacher.pt, which export
and train_style read. To train one of the two further, begin its training with --from-stored instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..networks import storage
from .training_loop import first_state, save


def restore(folder: Path) -> None:
    """Raises FileExistsError where a training has left its own."""
    files = {"teacher": ("unet",), "autoencoder": ("encoder", "decoder")}
    for name in files:
        if (file := folder / f"{name}.pt").exists():
            raise FileExistsError(f"{file} is there already, and a training may have made it: choose an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, parts in files.items():
        networks = storage.networks(storage.read(storage.WEIGHTS / f"{name}.safetensors")[0], *parts)
        state = first_state(weight for network in networks for weight in network.values())
        save({**dict(zip(parts, networks, strict=True)), "state": state}, folder / f"{name}.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    restore(parser.parse_args().folder)
