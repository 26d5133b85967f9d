"""The narrow models of small_model inside ComfyUI's own classes, with the pack's nodes on them.

ComfyUI tells SD1.5 by 320 channels and the narrow UNet has 64, so its loaders would not take it: the configuration is
given here, and everything after it is ComfyUI's.
"""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from environment import UserError
from safetensors.torch import save_file
from torch import Tensor
from trial.small_models.unets import SD15_DRAWN

from ..networks import storage
from ..networks.unet import CHANNELS
from .cells import BASE, LORA, TUNED, WINDOWS, Model
from .sampling import with_delta

CONFIG = SD15_DRAWN | dict(model_channels=CHANNELS)
FILES = {BASE: "teacher", TUNED: "tuned", LORA: "style-lora", "delta": "delta", "autoencoder": "autoencoder"}


def model_of(weights: dict[str, Tensor], precision: torch.dtype = torch.float32) -> Any:
    """A MODEL of a narrow UNet with diffusers' names. Raises UserError for one of another layout."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils

    config = comfy.supported_models.SD15(CONFIG)
    config.set_inference_dtype(precision, None)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    model = config.get_model({}, "")
    wanted = set(model.diffusion_model.state_dict())
    given = {names.get(name, name): tensor.float() for name, tensor in weights.items()}
    if wanted != set(given):
        raise UserError(
            f"The narrow UNet has {len(given)} tensors, {len(wanted ^ set(given))} of them other than ComfyUI's class "
            f"of that layout wants ({sorted(wanted ^ set(given))[0]}), expected small_model/networks/unet.py's."
        )
    model.load_model_weights(given, "")
    management = comfy.model_management
    devices = dict(load_device=management.get_torch_device(), offload_device=management.unet_offload_device())
    return comfy.model_patcher.ModelPatcher(model, **devices)


class NarrowModels:
    """The models of a folder of narrow weights, each made when it is first used."""

    def __init__(self, comfyui: Any, folder: Path, precision: torch.dtype = torch.float32) -> None:
        import folder_paths

        self._nodes, self.folder, self.precision = comfyui.nodes, folder, precision
        # A low-rank delta is made from float32 weights, whatever the pictures are sampled in.
        self._exact = self if precision == torch.float32 else NarrowModels(comfyui, folder)
        self._made: dict[Model, Any] = {}
        self._for_comfyui = Path(tempfile.mkdtemp(dir=comfyui.base))  # files as ComfyUI reads them
        for kind in ("perflow", "loras"):
            folder_paths.add_model_folder_path(kind, str(self._for_comfyui))

    def roots(self) -> list[str]:
        """Which models without delta the folder has."""
        return [root for root in (BASE, TUNED, LORA) if self._found(root)]

    def has_delta(self) -> bool:
        return self._found("delta") is not None

    def file(self, what: str) -> Path:
        """Raises FileNotFoundError that says what to make."""
        found = self._found(what)
        if found is None:
            raise FileNotFoundError(
                f"{self.folder} has no {FILES[what]}.safetensors or .pt, expected the narrow {what}: train it first."
            )
        return found

    def _found(self, what: str) -> Path | None:
        paths = (self.folder / f"{FILES[what]}{end}" for end in (".safetensors", ".pt"))
        return next((path for path in paths if path.is_file()), None)

    def weights(self, what: str, *parts: str) -> list[dict[str, Tensor]]:
        """The narrow networks `parts` of one of the files."""
        file = self.file(what)
        if file.suffix == ".pt":
            return storage.averaged(file, *parts)
        return storage.networks(storage.read(file)[0], *parts)

    def _plain(self, what: str) -> str:
        """The name of the same file with a number a weight, which ComfyUI and the pack read."""
        tensors, metadata = storage.read(self.file(what))
        plain = self._for_comfyui / f"{FILES[what]}-{sha256(self.file(what)).hex()[:10]}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, plain, metadata)
        return plain.name

    def digest(self, model: Model) -> str:
        """A short name of the weights in all files that the model is made of, with its rank and its precision."""
        files = {self.file(BASE), self.file(model.root), self.file("autoencoder")}
        files |= {self.file("delta")} if model.delta else set()
        digest = hashlib.sha256(f"{model.rank} {self.precision}".encode())
        for file in sorted(files):
            digest.update(sha256(file))
        return digest.hexdigest()[:10]

    def __getitem__(self, model: Model) -> Any:
        if model not in self._made:
            self._made[model] = self._make(model)
        return self._made[model]

    def _make(self, model: Model) -> Any:
        if model.delta:
            delta = self._compressed(model.rank) if model.rank else self._plain("delta")
            return with_delta(self._nodes, self[Model(model.root)], delta)
        if model.root == LORA:
            return self._with_lora(self[Model(BASE)])
        (unet,) = self.weights(model.root, "unet")
        return model_of(unet, self.precision)

    def _with_lora(self, model: Any) -> Any:
        """Raises UserError where Load LoRA leaves something out, which it only logs."""
        name = self._plain(LORA)
        patched = self._nodes["LoraLoaderModelOnly"]().load_lora_model_only(model, name, 1.0)[0]
        pairs = sum(key.endswith(".lora_up.weight") for key in self.weights(LORA, "lora")[0])
        if len(patched.patches) != pairs:
            raise UserError(
                f"{name} has {pairs} pairs of tensors, of which Load LoRA used {len(patched.patches)}, expected all: "
                "make the file again with small_model.trainers.train_style."
            )
        return patched

    def _compressed(self, rank: int) -> str:
        """The name of the delta's low-rank file, made by Extract PeRFlow Delta."""
        inputs = dict(filename_prefix=f"rank{rank}", rank=rank, energy=0.0, prediction_type="auto", windows=WINDOWS)
        pair = (self._exact[Model(BASE, True)], self._exact[Model(BASE)])
        return Path(self._nodes["PeRFlowExtractDelta"].execute(*pair, **inputs).result[0]).name


@cache
def sha256(file: Path) -> bytes:
    """Of the file as it was at the first call: a training may go on writing it."""
    return hashlib.sha256(file.read_bytes()).digest()
