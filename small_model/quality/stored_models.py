"""The models of a folder of stored weights, as the table samples them."""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..networks import storage
from .cells import BASE, DELTA, LORA, REFLOW, TUNED, UNALIGNED, Family, Model
from .sampling import Texts, noise_of


class StoredModels(ABC):
    """The models of a folder, each made when it is first used."""

    family: Family
    latent_format: Any  # ComfyUI's, between LATENT samples and the autoencoder's latents
    FILES: ClassVar[Mapping[str, str]]  # of roots, deltas and the autoencoder

    def __init__(self, comfyui: Any, folder: Path, precision: torch.dtype = torch.float32) -> None:
        import folder_paths

        self._nodes, self.folder, self.precision = comfyui.nodes, folder, precision
        self._made: dict[Model, Any] = {}
        self._for_comfyui = Path(tempfile.mkdtemp(dir=comfyui.base))  # files as ComfyUI reads them
        for kind in ("perflow", "loras"):
            folder_paths.add_model_folder_path(kind, str(self._for_comfyui))

    def roots(self) -> list[str]:
        """Which models without delta the folder has."""
        return [root for root in (BASE, TUNED, LORA) if self._found(root)]

    def deltas(self) -> list[str]:
        return [delta for delta in (DELTA, UNALIGNED, REFLOW) if self._found(delta)]

    def file(self, what: str) -> Path:
        """Raises FileNotFoundError that says what to make."""
        found = self._found(what)
        if found is None:
            raise FileNotFoundError(
                f"{self.folder} has no {self.FILES[what]}.safetensors or .pt, expected the small model's {what}: "
                "train it first."
            )
        return found

    def _found(self, what: str) -> Path | None:
        paths = (self.folder / f"{self.FILES[what]}{end}" for end in (".safetensors", ".pt") if what in self.FILES)
        return next((path for path in paths if path.is_file()), None)

    def weights(self, what: str, *parts: str) -> list[dict[str, Tensor]]:
        """The stored networks `parts` of one of the files."""
        file = self.file(what)
        if file.suffix == ".pt":
            return storage.averaged(file, *parts)
        return storage.networks(storage.read(file)[0], *parts)

    def _plain(self, what: str) -> str:
        """The name of the same file with a number a weight, which ComfyUI and the pack read."""
        tensors, metadata = storage.read(self.file(what))
        plain = self._for_comfyui / f"{self.FILES[what]}-{sha256(self.file(what)).hex()[:10]}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, plain, metadata)
        return plain.name

    def digest(self, model: Model) -> str:
        """A short name of the weights in all files that the model is made of, with its rank and its precision."""
        files = {self.file(BASE), self.file(model.root), self.file("autoencoder")}
        files |= {self.file(model.delta)} if model.delta else set()
        digest = hashlib.sha256(f"{model.rank} {self.precision}".encode())
        for file in sorted(files):
            digest.update(sha256(file))
        return digest.hexdigest()[:10]

    def __getitem__(self, model: Model) -> Any:
        if model not in self._made:
            self._made[model] = self._make(model)
        return self._made[model]

    @abstractmethod
    def _make(self, model: Model) -> Any:
        """The MODEL."""

    def texts(self) -> Texts:
        return Texts()

    def noise(self, numbers: Sequence[int]) -> Tensor:
        return noise_of(numbers, (self.latent_format.latent_channels, 16, 16))

    @abstractmethod
    def checkpoint(self, path: Path) -> Path:
        """Write the checkpoint that users have."""

    @abstractmethod
    def delta(self, path: Path) -> Path:
        """Write PeRFlow's delta for it."""


@cache
def sha256(file: Path) -> bytes:
    """Of the file as it was at the first call: a training may go on writing it."""
    return hashlib.sha256(file.read_bytes()).digest()
