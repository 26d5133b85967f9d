"""Small random models with the real layouts, for demonstrations and tests without a download.

The keys come from ComfyUI's own modules, so the stock loaders recognise the files. Random weights know no
pictures, but these are arranged so that sampling behaves: it removes noise and ends in smooth fields of colour.
Needs torch, safetensors and ComfyUI (on sys.path, or in the folder that PERFLOW_COMFYUI names).
"""

from __future__ import annotations

import json
import math
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file

Config = dict[str, Any]
Shapes = dict[str, torch.Size]
Tensors = dict[str, torch.Tensor]

UNET = "model.diffusion_model."

_COMMON: Config = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, use_spatial_transformer=True, legacy=False
)

# ComfyUI tells SD1.5 by model_channels 320, context_dim 768 (read from the first attention layer on the way down),
# 4-dimensional proj_in and no label_emb. Levels, blocks and depths are free. As in SD1.5, the lowest level has no
# attention.
SD15_SMALL: Config = _COMMON | dict(
    channel_mult=[1, 1],
    num_res_blocks=[1, 1],
    transformer_depth=[1, 0],
    transformer_depth_output=[1, 1, 0, 0],
    transformer_depth_middle=1,
    context_dim=768,
    use_linear_in_transformer=False,
    num_heads=8,
)
# One level with one block is as small as that layout gets while it has every kind of layer but up- and downsampling.
SD15_TINY: Config = SD15_SMALL | dict(
    channel_mult=[1], num_res_blocks=[1], transformer_depth=[1], transformer_depth_output=[1, 0]
)
# SD2.x differs by context_dim 1024 and 2-dimensional proj_in; its heads have 64 channels.
SD21_SMALL: Config = SD15_SMALL | dict(
    context_dim=1024, use_linear_in_transformer=True, num_heads=-1, num_head_channels=64
)
# SDXL is told by adm_in_channels 2816, context_dim 2048 and exactly these depths on the way down; the middle and the
# way up are free, so they are shallow here.
SDXL_SMALL: Config = SD21_SMALL | dict(
    channel_mult=[1, 1, 1],
    num_res_blocks=[2, 2, 2],
    transformer_depth=[0, 0, 2, 2, 10, 10],
    transformer_depth_output=[0, 0, 0, 1, 1, 1, 1, 1, 1],
    context_dim=2048,
    num_classes="sequential",
    adm_in_channels=2816,
)

_VAE: Config = dict(in_channels=3, out_ch=3, z_channels=4, double_z=True, resolution=256)
_VAE |= dict(ch=128, ch_mult=[1, 2, 4, 4], num_res_blocks=2, attn_resolutions=[], dropout=0.0)


def make_checkpoint(path: Path, seed: int = 0, unet_config: Config = SD15_SMALL) -> Path:
    """Write an SD1.5 checkpoint: a small UNet, and the text model and VAE in their real sizes (fp16)."""
    tensors = {UNET + name: tensor for name, tensor in _unet(unet_config, seed).items()}
    tensors |= _random(_text_model_shapes(), seed)
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    tensors |= _vae(seed)
    return _save(tensors, path)


def make_unet(path: Path, preset: Config, seed: int = 0) -> Path:
    """Write a UNet alone, as the diffusion model loader reads it (fp16)."""
    return _save(_unet(preset, seed), path)


def make_delta(
    path: Path,
    checkpoint: Path,
    layout: Literal["diffusers", "comfyui"] = "diffusers",
    scale: float = 0.05,
    seed: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a difference for every UNet tensor of a checkpoint, `scale` times as large as the tensor itself."""
    unet = _read_unet(checkpoint)
    names = _diffusers_names(unet) if layout == "diffusers" else {name: f"diffusion_model.{name}" for name in unet}
    delta = {}
    for name, weight in unet.items():
        noise = torch.randn(weight.shape, generator=_generator(name, seed))
        size = max(weight.float().std().item() if weight.numel() > 1 else 0.0, 0.02)
        delta[names[name]] = (noise * (scale * size)).half()
    return _save(delta, path, metadata)


def make_lora(path: Path, checkpoint: Path, rank: int = 4, seed: int = 2, scale: float = 0.3) -> Path:
    """Write a kohya-style LoRA over the attention and feed-forward layers of a checkpoint's UNet (fp16)."""
    unet = _read_unet(checkpoint)
    lora: Tensors = {}
    for name, diffusers_name in _diffusers_names(unet).items():
        if ".transformer_blocks." not in name or unet[name].dim() != 2:
            continue
        out, inner = unet[name].shape
        key = "lora_unet_" + diffusers_name.removesuffix(".weight").replace(".", "_")
        up = torch.randn(out, rank, generator=_generator(key + "up", seed)) * scale / math.sqrt(rank)
        down = torch.randn(rank, inner, generator=_generator(key + "down", seed)) / math.sqrt(inner)
        lora |= {f"{key}.lora_up.weight": up.half(), f"{key}.lora_down.weight": down.half()}
        lora[f"{key}.alpha"] = torch.tensor(float(rank))
    return _save(lora, path)


def make_controlnet(path: Path, preset: Config = SD15_SMALL, seed: int = 3) -> Path:
    """Write a classic ControlNet that fits a UNet of this preset (fp16)."""
    _find_comfyui()
    from comfy.cldm.cldm import ControlNet

    config = {name: value for name, value in preset.items() if name != "out_channels"}
    shapes = _shapes(lambda: ControlNet(hint_channels=3, **config), "control_model.")
    return _save(_random(shapes, seed), path)


def _unet(config: Config, seed: int) -> Tensors:
    _find_comfyui()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    unet = _random(_shapes(lambda: UNetModel(**config)), seed)
    _predict_noise(unet, config)
    return unet


def _predict_noise(unet: Tensors, config: Config) -> None:
    """Make the UNet's output mostly the fine detail of its input, so that sampling takes noise away.

    The input's channels travel twice, with both signs, through the outermost skip connection. The output layer
    adds the two up again: silu(x) - silu(-x) = x, so the path is straight.
    """
    channels = config["in_channels"]
    group = config["model_channels"] // 32  # the last norm takes groups this large; the rest of the first stays zero
    last = f"output_blocks.{sum(config['num_res_blocks']) + len(config['num_res_blocks']) - 1}."
    skip = f"{last}0.skip_connection.weight"
    for name in ("input_blocks.0.0.weight", skip, f"{last}0.out_layers.3.weight", f"{last}1.proj_out.weight"):
        if name in unet:
            unet[name][:group] = 0
    detail = -0.6 * _SMOOTH
    detail[1, 1] += 1
    unet["out.2.weight"] *= 0.2
    for i in range(channels):
        for sign, j in ((1, i), (-1, i + channels)):
            unet["input_blocks.0.0.weight"][j, i, 1, 1] = sign
            unet[skip][j, config["model_channels"] + j] = 1
            unet["out.2.weight"][i, j] = sign * detail


def _text_model_shapes() -> Shapes:
    _find_comfyui()
    import comfy.ops
    import comfy.sd1_clip
    from comfy.clip_model import CLIPTextModel

    config = json.loads((Path(comfy.sd1_clip.__file__).parent / "sd1_clip_config.json").read_text(encoding="utf-8"))
    shapes = _shapes(
        lambda: CLIPTextModel(config, torch.float32, "meta", comfy.ops.disable_weight_init),
        "cond_stage_model.transformer.",
    )
    # ComfyUI's module has a projection that SD1.5 files do not carry.
    return {name: shape for name, shape in shapes.items() if "text_projection" not in name}


def _vae(seed: int) -> Tensors:
    _find_comfyui()
    from comfy.ldm.models.autoencoder import AutoencoderKL

    vae = _random(_shapes(lambda: AutoencoderKL(ddconfig=_VAE, embed_dim=4), "first_stage_model."), seed)
    vae["first_stage_model.decoder.conv_out.weight"] *= 1.5  # strong colours
    return vae


def _shapes(build: Callable[[], torch.nn.Module], prefix: str = "") -> Shapes:
    """The names and shapes of a module's tensors, without the memory for them."""
    with torch.device("meta"):
        return {prefix + name: tensor.shape for name, tensor in build().state_dict().items()}


_SMOOTH = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


def _random(shapes: Shapes, seed: int) -> Tensors:
    return {name: _random_tensor(name, shape, seed).half() for name, shape in shapes.items()}


def _random_tensor(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Weights that keep the size of what passes through; 3x3 kernels blur, so pictures come out smooth."""
    if len(shape) == 1:
        return torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
    blur = shape[2:] == (3, 3)
    noise = torch.randn(shape[:2] if blur else shape, generator=_generator(name, seed))
    noise /= math.sqrt(shape[1])
    return noise[:, :, None, None] * _SMOOTH if blur else noise


def _generator(name: str, seed: int) -> torch.Generator:
    """Every tensor has a stream of its own, so a new tensor does not change the others."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))


def _read_unet(path: Path) -> Tensors:
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        prefix = UNET if any(name.startswith(UNET) for name in names) else ""
        return {name[len(prefix) :]: file.get_tensor(name) for name in names if name.startswith(prefix)}


def _diffusers_names(unet: Tensors) -> dict[str, str]:
    """ComfyUI's name -> diffusers' name for every tensor of a UNet."""
    _find_comfyui()
    from comfy.model_detection import detect_unet_config
    from comfy.utils import unet_to_diffusers

    names = {ours: theirs for theirs, ours in unet_to_diffusers(detect_unet_config(unet, "")).items()}
    return {name: names[name] for name in unet}


def _find_comfyui() -> None:
    """Make `import comfy` work, on machines without a GPU too."""
    if "comfy" not in sys.modules and (folder := os.environ.get("PERFLOW_COMFYUI")):
        sys.path.append(folder)
    import comfy.cli_args

    if "comfy.model_management" not in sys.modules:
        comfy.cli_args.args.cpu = True  # these models are made on the CPU; without this ComfyUI insists on a GPU


def _save(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(unfinished), metadata)
    unfinished.replace(path)
    return path
