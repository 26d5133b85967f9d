"""The weights of a diffusers UNet by the names of the model's authors, which checkpoints and ComfyUI have."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from .lora_file import lora_name, lora_names
from .unet_layout import UNetLayout

LAYERS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
IN_RESNETS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
INSIDE = {"resnets": "0", "attentions": "1"}  # places in one of the authors' blocks
PART = re.compile(r"((?:down|up)_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(?=\.)")


def layout_of(weights: Mapping[str, Tensor], architecture: str) -> UNetLayout:
    """Of a diffusers UNet, by its own names; files may have these or the authors', and LoRA files either of them."""
    names: dict[str, str] = {}
    modules: dict[str, str] = {}
    for key, authors in authors_names(weights).items():
        names |= {key: key, authors: key}
        if key.endswith(".weight"):
            layer, theirs = key.removesuffix(".weight"), authors.removesuffix(".weight")
            modules |= dict.fromkeys([*lora_names(theirs), lora_name(layer), *_diffusers_names(layer)], key)
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    return UNetLayout(shapes, {key: weight.dtype for key, weight in weights.items()}, names, modules, architecture)


def authors_names(keys: Collection[str]) -> dict[str, str]:
    """diffusers' names of all of a UNet's weights -> the authors', without a prefix.

    diffusers counts blocks of several layers; the authors count the layers, and a downsampler is one more.
    """
    found = {match.groups() for match in map(PART.match, keys) if match}
    resnets = sum(part[:3] == ("down_blocks", "0", "resnets") for part in found)
    attending = {part[1] for part in found if (part[0], part[2]) == ("up_blocks", "attentions")}
    return {key: _authors_name(key, resnets, attending) for key in keys}


def _authors_name(key: str, resnets: int, attending: Collection[str]) -> str:
    """resnets: of a block on the way down; on the way up there is one more. attending: numbers of up-blocks."""
    if match := PART.match(key):
        blocks, b, kind, i = match.groups()
        first = int(b) * (resnets + 1)
        if blocks == "down_blocks":
            place = f"input_blocks.{first + 1 + (int(i) if kind in INSIDE else resnets)}.{INSIDE.get(kind, '0')}"
        else:
            own = INSIDE.get(kind, "2" if b in attending else "1")
            place = f"output_blocks.{first + (int(i) if kind in INSIDE else resnets)}.{own}"
        part, rest = match[0], key[match.end() + 1 :]
    else:
        part = next((part for part in LAYERS if key.startswith(f"{part}.")), "")
        place, rest = LAYERS.get(part, ""), key.removeprefix(f"{part}.")
    layer, _, kind = rest.rpartition(".")
    if "resnets" in part:
        rest = f"{IN_RESNETS.get(layer, layer)}.{kind}"
    if "downsamplers" in part:
        rest = f"op.{kind}"
    return f"{place}.{rest}" if place else rest


def _diffusers_names(layer: str) -> list[str]:
    """What LoRA files of diffusers' own call a layer, older ones by its attention's processor."""
    processor = layer.replace(".to_", ".processor.to_").removesuffix(".0" if layer.endswith("to_out.0") else "")
    return [
        f"lycoris_{layer.replace('.', '_')}",
        *(prefix + name for prefix in ("", "unet.") for name in (layer, processor)),
    ]
