"""The narrow models of small_model inside ComfyUI's own classes, with the pack's nodes on them.

ComfyUI tells SD1.5 by 320 channels and the narrow UNet has 64, so its loaders would not take it: the configuration is
given here, and everything after it is ComfyUI's.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from environment import UserError
from torch import Tensor
from trial.small_models.trained import make_trained_checkpoint, make_trained_delta
from trial.small_models.unets import SD15_DRAWN

from ..networks.unet import CHANNELS
from .cells import BASE, DELTA, LORA, SD15, TUNED, WINDOWS, Model
from .sampling import with_delta
from .stored_models import StoredModels

CONFIG = SD15_DRAWN | dict(model_channels=CHANNELS)


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


class NarrowModels(StoredModels):
    """The SD1.5-like ones."""

    family = SD15
    FILES = MappingProxyType(
        {BASE: "teacher", TUNED: "tuned", LORA: "style-lora", DELTA: "delta", "autoencoder": "autoencoder"}
    )

    def __init__(self, comfyui: Any, folder: Path, precision: torch.dtype = torch.float32) -> None:
        import comfy.latent_formats

        super().__init__(comfyui, folder, precision)
        self.latent_format = comfy.latent_formats.SD15()
        # A low-rank delta is made from float32 weights, whatever the pictures are sampled in.
        self._exact = self if precision == torch.float32 else NarrowModels(comfyui, folder)

    def checkpoint(self, path: Path) -> Path:
        return make_trained_checkpoint(path, self.folder)

    def delta(self, path: Path) -> Path:
        return make_trained_delta(path, self.folder)

    def _make(self, model: Model) -> Any:
        if model.delta:
            delta = self._compressed(model.rank) if model.rank else self._plain(model.delta)
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
        pair = (self._exact[Model(BASE, DELTA)], self._exact[Model(BASE)])
        return Path(self._nodes["PeRFlowExtractDelta"].execute(*pair, **inputs).result[0]).name
