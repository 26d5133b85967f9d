"""Wonder3D's UNet with the reference's weights, which a formula defines, as files and as MODELs."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.samplers
import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.sd import VAE
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def formula_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The reference's weight_rule."""
    numbers = np.arange(1, math.prod(shape) + 1, dtype=np.float64)
    s = (zlib.crc32(name.encode()) % 10007) / 10007
    wave = np.sin(numbers * 12.9898 + 78.233 * s) * 43758.5453
    v = torch.from_numpy(2 * (wave - np.floor(wave)) - 1).reshape(shape)
    if len(shape) > 1:
        return v * math.sqrt(3 / math.prod(shape[1:]))
    return 1 + 0.1 * v if name.endswith("weight") else 0.05 * v


def formula_weights(keys: Mapping[str, list[int]]) -> Tensors:
    return {name: formula_weight(name, shape).float() for name, shape in keys.items()}


def with_old_names(tensors: Tensors) -> Tensors:
    return {name.replace("_joint_mid.", "_joint_twice."): tensor for name, tensor in tensors.items()}


def write(tensors: Tensors, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path))
    else:
        torch.save(tensors, path)
    return path


def inputs(case: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The UNet's input [12, 8, 8, 8] and context [12, 1, 16], and its output [12, 4, 8, 8]."""
    x, context, out = (torch.tensor(case[name], dtype=torch.float32) for name in ("x", "context", "out"))
    return x.reshape(12, 8, 8, 8), context.reshape(12, 1, -1), out.reshape(12, 4, 8, 8)


def conditioned(picture: torch.Tensor, context: torch.Tensor) -> tuple[list[Any], list[Any]]:
    """Wonder3D Conditioning's positive and negative, for a VAE's latent [n, 4, h, w] and a context [n, 1, w]."""
    seen, rows = (tensor.repeat_interleave(12, 0) for tensor in (picture, context))
    zeros = torch.zeros_like(rows), {"concat_latent_image": torch.zeros_like(seen)}
    return [[rows, {"concat_latent_image": seen}]], [[*zeros]]


class Memory:
    """So much free memory that the conditionings of a step share a batch, or so little that each has its own."""

    def __init__(self, monkeypatch: Any):
        self._patch = monkeypatch
        self.rows: list[int] = []  # of each call of the UNet
        self.timesteps: list[int] = []  # as it was told them

    def sample(self, model: Any, plenty: bool, cfg: float = 3.0, width: int = 768, **inputs: Any) -> torch.Tensor:
        """Two euler steps over 12 rows of 8 x 8, from a fixed noise."""
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "rows", self._count)
        self._patch.setattr(ModelPatcher, "get_free_memory", lambda *_: 1e12 if plenty else 0.0)
        self.rows.clear()
        self.timesteps.clear()
        random = torch.Generator().manual_seed(0)
        things = inputs.pop("things", 1)
        noise = torch.randn(12 * things, 4, 8, 8, generator=random)
        prompts = conditioned(
            torch.randn(things, 4, 8, 8, generator=random), torch.randn(things, 1, width, generator=random)
        )
        sampling = model.get_model_object("model_sampling")
        sigmas = inputs.pop("sigmas", None)
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 2) if sigmas is None else sigmas
        euler, empty = comfy.samplers.sampler_object("euler"), torch.zeros_like(noise)
        return comfy.sample.sample_custom(model, noise, cfg, euler, sigmas, *prompts, empty, disable_pbar=True)

    def _count(
        self, executor: Any, x: torch.Tensor, timesteps: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        self.rows.append(len(x))
        self.timesteps.append(round(float(timesteps[0])))
        return executor(x, timesteps, *args, **kwargs)


def small_clip_vision(folder: Path, width: int = 768) -> ClipVisionModel:
    """CLIP's image encoder of two narrow layers, whose embedding has that width."""
    config = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    config |= {
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "image_size": 224,
        "patch_size": 32,
        "num_channels": 3,
    }
    path = folder / "clip_vision.json"
    path.write_text(json.dumps(config | {"layer_norm_eps": 1e-5, "projection_dim": width}))
    model = ClipVisionModel(str(path))
    _fill(model.model)
    return model


def small_vae() -> VAE:
    """SD1.5's autoencoder with a tenth of its channels."""
    sizes = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "z_channels": 4, "double_z": True}
    sizes |= {"in_channels": 3, "out_ch": 3, "resolution": 256, "attn_resolutions": [], "dropout": 0.0}
    config = {"params": {"ddconfig": sizes, "embed_dim": 4}}
    module = AutoencoderKL(**config["params"])
    _fill(module)
    return VAE(sd=module.state_dict(), config=config)


def _fill(module: torch.nn.Module) -> None:
    random = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        size = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data = size * torch.randn(parameter.shape, generator=random) + (parameter.ndim == 1)
