"""The text models CLIP-L, CLIP-H and CLIP-G in their real sizes, in the namings that files have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch

from .random_tensors import Shapes, find_comfyui, random, shapes_of
from .sparse_files import Tensors, save


class TextModel(NamedTuple):
    config: str  # ComfyUI's, below its folder comfy/
    layers: int | None = None  # in files, where they are fewer than the configuration says
    projected: bool = True


CLIP_L = TextModel("sd1_clip_config.json", projected=False)
CLIP_L_PROJECTED = TextModel("sd1_clip_config.json")
CLIP_G = TextModel("clip_config_bigg.json")
# SD2.x takes what the last layer but one gives, so diffusers' files leave the last one out.
CLIP_H = TextModel("text_encoders/sd2_clip_config.json", layers=23, projected=False)

_LAYERS = 2  # with weights; the others hand on what they get


def make_text_encoder(path: Path, model: TextModel = CLIP_H, seed: int = 0) -> Path:
    """Write a text model alone, as in diffusers' folder text_encoder (fp16)."""
    return save(text_model(model, "", seed), path)


def text_model(model: TextModel, prefix: str, seed: int) -> Tensors:
    """A text model with the names of transformers: text_model.encoder.layers.0.self_attn.q_proj.weight and so on."""
    tensors = random({prefix + name: shape for name, shape in text_model_shapes(model).items()}, seed, _LAYERS)
    tensors[prefix + "text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    return tensors


def openclip_model(model: TextModel, prefix: str, seed: int) -> Tensors:
    """A text model with the names of OpenCLIP: transformer.resblocks.0.attn.in_proj_weight and so on."""
    find_comfyui()
    from comfy.diffusers_convert import convert_text_enc_state_dict_v20

    theirs = {
        f"transformer.{name}": torch.empty(shape, device="meta") for name, shape in text_model_shapes(model).items()
    }
    shapes = {prefix + name: tensor.shape for name, tensor in convert_text_enc_state_dict_v20(theirs).items()}
    tensors = random(shapes, seed, _LAYERS)
    tensors[prefix + "logit_scale"] = torch.tensor(4.6052)  # ln 100, in every CLIP
    return tensors


def text_model_shapes(model: TextModel) -> Shapes:
    find_comfyui()
    import comfy.ops
    import comfy.sd1_clip
    from comfy.clip_model import CLIPTextModel

    folder = Path(comfy.sd1_clip.__file__).parent
    config = json.loads((folder / model.config).read_text(encoding="utf-8"))
    if model.layers:
        config["num_hidden_layers"] = model.layers
    shapes = shapes_of(lambda: CLIPTextModel(config, torch.float32, "meta", comfy.ops.disable_weight_init))
    # ComfyUI's module always has a projection; the files of CLIP-L and CLIP-H carry none.
    return {name: shape for name, shape in shapes.items() if model.projected or "text_projection" not in name}
