"""UNets and ControlNets of Stable Diffusion's layouts, as small as ComfyUI's recognition of them allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from small_model.networks.unet import COMFYUI_LAYOUT

from .random_tensors import SMOOTH, find_comfyui, random, shapes_of
from .sparse_files import Tensors, save

Config = dict[str, Any]

UNET = "model.diffusion_model."

_COMMON: Config = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, use_spatial_transformer=True, legacy=False
)

SD15_LAYOUT: Config = dict(  # of the published model
    channel_mult=[1, 2, 4, 4],
    num_res_blocks=[2, 2, 2, 2],
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
    transformer_depth_output=[1] * 9 + [0] * 3,
)
# ComfyUI recognises SD1.5 by model_channels 320, context_dim 768 (read from the first attention layer on the way down),
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
SD15_DRAWN: Config = SD15_SMALL | COMFYUI_LAYOUT  # the trained model, widened
# SD2.x differs by context_dim 1024 and 2-dimensional proj_in; its heads have 64 channels.
SD21_SMALL: Config = SD15_SMALL | dict(
    context_dim=1024, use_linear_in_transformer=True, num_heads=-1, num_head_channels=64
)
# ComfyUI recognises SDXL by adm_in_channels 2816, context_dim 2048 and the depths on the way down, [0, 0, 2, 2, 10, 10]
# or those of published smaller models, of which Segmind Vega has the fewest layers. The middle and the way up are free,
# so they are shallow here: one attention in each level, before the upsampling.
SDXL_SMALL: Config = SD21_SMALL | dict(
    channel_mult=[1, 1, 1],
    num_res_blocks=[2, 2, 2],
    transformer_depth=[0, 0, 1, 1, 2, 2],
    transformer_depth_output=[0, 0, 0, 1, 0, 0, 1, 0, 0],
    context_dim=2048,
    num_classes="sequential",
    adm_in_channels=2816,
)
# The refiner likewise, by model_channels 384 and numbers of its own.
REFINER_SMALL: Config = SDXL_SMALL | dict(
    model_channels=384,
    channel_mult=[1, 1, 1, 1],
    num_res_blocks=[2, 2, 2, 2],
    transformer_depth=[0, 0, 4, 4, 4, 4, 0, 0],
    transformer_depth_output=[0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    context_dim=1280,
    adm_in_channels=2560,
)


def make_unet(path: Path, preset: Config, seed: int = 0, sign: int = 1) -> Path:
    """Write a UNet alone, as the diffusion model loader reads it (fp16).

    The names are ComfyUI's: UNets with diffusers' names it takes in their full sizes only. A model that predicts
    noise, or noise - data, has sign 1; one that predicts data - noise has -1.
    """
    return save(unet(preset, seed, sign), path)


def make_controlnet(path: Path, preset: Config = SD15_SMALL, seed: int = 3) -> Path:
    """Write a classic ControlNet that fits a UNet of this preset (fp16)."""
    find_comfyui()
    from comfy.cldm.cldm import ControlNet

    config = {name: value for name, value in preset.items() if name != "out_channels"}
    shapes = shapes_of(lambda: ControlNet(hint_channels=3, **config), "control_model.")
    return save(random(shapes, seed), path)


def unet(config: Config, seed: int, sign: int = 1) -> Tensors:
    find_comfyui()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    tensors = random(shapes_of(lambda: UNetModel(**config)), seed)
    _predict_noise(tensors, config, sign)
    return tensors


def _predict_noise(unet: Tensors, config: Config, sign: int) -> None:
    """Make the UNet's output mostly the fine detail of its input, so that sampling takes noise away.

    The input's channels travel twice, with both signs, through the outermost skip connection. The output layer
    adds the two up again: silu(x) - silu(-x) = x, so the path is straight.
    """
    channels = config["out_channels"]  # further input channels are a picture, without noise
    # The last norm takes groups this large; the rest of the first stays zero.
    group = max(config["model_channels"] // 32, 2 * channels)
    last = f"output_blocks.{sum(config['num_res_blocks']) + len(config['num_res_blocks']) - 1}."
    skip = f"{last}0.skip_connection.weight"
    for name in ("input_blocks.0.0.weight", skip, f"{last}0.out_layers.3.weight", f"{last}1.proj_out.weight"):
        if name in unet:
            unet[name][:group] = 0
    detail = -0.6 * SMOOTH
    detail[1, 1] += 1
    unet["out.2.weight"] *= 0.2
    for i in range(channels):
        for side, j in ((1, i), (-1, i + channels)):
            unet["input_blocks.0.0.weight"][j, i, 1, 1] = side
            unet[skip][j, config["model_channels"] + j] = 1
            unet["out.2.weight"][i, j] = sign * side * detail


def read_unet(path: Path) -> Tensors:
    """The UNet of a file, whether it is alone in it or part of a checkpoint."""
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        prefix = UNET if any(name.startswith(UNET) for name in names) else ""
        return {name[len(prefix) :]: file.get_tensor(name) for name in names if name.startswith(prefix)}


def diffusers_names(unet: Tensors) -> dict[str, str]:
    """ComfyUI's name -> diffusers' name for every tensor of a UNet."""
    find_comfyui()
    from comfy.model_detection import detect_unet_config
    from comfy.utils import unet_to_diffusers

    names = {ours: theirs for theirs, ours in unet_to_diffusers(detect_unet_config(unet, "")).items()}
    return {name: names[name] for name in unet}
