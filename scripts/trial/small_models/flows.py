"""Flow-matching transformers in the layouts of the published models, with numbers as small as ComfyUI takes them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from perflow_core.weights.lora_file import delta_metadata, lora_pair

from .random_tensors import find_comfyui, generator, shapes_of
from .sparse_files import Tensors, save, zeros
from .unets import UNET

Config = dict[str, Any]


class Flow(NamedTuple):
    """A layout: its class in comfy.supported_models and the configuration of its network.

    ComfyUI reads a model's numbers from its file. Where `detected` is false it takes some of them for granted, so that
    only the full size would be recognised; such a file has to be loaded with the configuration given here.
    """

    kind: str
    config: Config
    detected: bool = True
    since: str = ""  # the first of the pinned ComfyUIs that has it so


def _sd3(depth: int) -> Config:
    """As SD3.5 has it: q and k are normed, and the first block attends to the picture once more."""
    width, text, side = 64 * depth, 4096, 32
    embedder = dict(target="torch.nn.Linear", params=dict(in_features=text, out_features=width))
    config: Config = dict(input_size=None, patch_size=2, in_channels=16, out_channels=16, depth=depth)
    config |= dict(adm_in_channels=2048, context_embedder_config=embedder, qk_norm="rms", x_block_self_attn_layers=[0])
    return config | dict(num_patches=side**2, pos_embed_max_size=side, pos_embed_scaling_factor=None)


_FLUX: Config = dict(image_model="flux", in_channels=16, out_channels=16, patch_size=2, hidden_size=128, num_heads=1)
_FLUX |= dict(depth=1, depth_single_blocks=1, axes_dim=[16, 56, 56], theta=10000, mlp_ratio=4.0, qkv_bias=True)
_FLUX |= dict(context_in_dim=4096, vec_in_dim=768, txt_ids_dims=[], guidance_embed=True)

_FLUX2: Config = _FLUX | dict(image_model="flux2", in_channels=128, out_channels=128, patch_size=1, mlp_ratio=3.0)
_FLUX2 |= dict(axes_dim=[32] * 4, theta=2000, qkv_bias=False, ops_bias=False, global_modulation=True, mlp_silu_act=True)
_FLUX2 |= dict(default_ref_method="index", ref_index_scale=10.0, txt_ids_dims=[3], context_in_dim=7680, vec_in_dim=None)

_CHROMA: Config = {name: value for name, value in _FLUX.items() if name != "guidance_embed"}
_CHROMA |= dict(image_model="chroma", in_channels=64, out_channels=64, vec_in_dim=None)
_CHROMA |= dict(in_dim=64, out_dim=128, hidden_dim=128, n_layers=1)

_LUMINA2: Config = dict(image_model="lumina2", patch_size=2, in_channels=16, n_layers=1, n_refiner_layers=1)
_LUMINA2 |= dict(qk_norm=True, dim=96, n_heads=1, n_kv_heads=1, axes_dims=[32, 32, 32], axes_lens=[300, 512, 512])
_LUMINA2 |= dict(cap_feat_dim=2304, rope_theta=10000.0, ffn_dim_multiplier=4.0)

_Z_IMAGE: Config = _LUMINA2 | dict(
    dim=256, n_heads=2, n_kv_heads=2, axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512], cap_feat_dim=2560
)
_Z_IMAGE |= dict(rope_theta=256.0, ffn_dim_multiplier=8 / 3, z_image_modulation=True, time_scale=1000.0)
_Z_IMAGE |= dict(pad_tokens_multiple=32)

_WAN: Config = dict(image_model="wan2.1", model_type="t2v", dim=128, num_heads=1, ffn_dim=256, num_layers=1)
_WAN |= dict(in_dim=16, out_dim=16, text_dim=4096, patch_size=(1, 2, 2), freq_dim=256)

_HUNYUAN: Config = dict(image_model="hunyuan_video", in_channels=16, out_channels=16, patch_size=[1, 2, 2])
_HUNYUAN |= dict(hidden_size=128, num_heads=1, depth=1, depth_single_blocks=1, axes_dim=[16, 56, 56], theta=256)
_HUNYUAN |= dict(context_in_dim=4096, vec_in_dim=768, mlp_ratio=4.0, qkv_bias=True, guidance_embed=True, byt5=False)
_HUNYUAN |= dict(meanflow=False, use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False)

_HIDREAM: Config = dict(image_model="hidream", patch_size=2, in_channels=16, out_channels=16, num_layers=1)
_HIDREAM |= dict(num_single_layers=1, attention_head_dim=128, num_attention_heads=1, caption_channels=[4096, 4096])
_HIDREAM |= dict(text_emb_dim=2048, num_routed_experts=4, num_activated_experts=2, axes_dims_rope=[64, 32, 32])
_HIDREAM |= dict(max_resolution=[128, 128], llama_layers=[0, 1])

_KREA2: Config = dict(image_model="krea2", features=128, channels=16, patch=2, layers=1, heads=1, kvheads=1)
_KREA2 |= dict(txtlayers=2, txtdim=320)

_LENS: Config = dict(image_model="lens", in_channels=128, out_channels=32, num_layers=1, num_attention_heads=1)
_LENS |= dict(enc_hidden_dim=256, multi_layer_encoder_feature=True, selected_layer_index=(0, 1))

_JOY: Config = dict(image_model="joyimage", in_channels=16, hidden_size=128, patch_size=[1, 2, 2], num_layers=1)
_JOY |= dict(num_attention_heads=1, text_dim=4096)

_KANDINSKY: Config = dict(image_model="kandinsky5", model_dim=128, axes_dims=(32, 48, 48), time_dim=64, ff_dim=256)
_KANDINSKY |= dict(visual_embed_dim=132, num_text_blocks=1, num_visual_blocks=1)

_ACE15: Config = dict(audio_model="ace1.5", hidden_size=128, intermediate_size=256, num_heads=1, num_kv_heads=1)
_ACE15 |= dict(encoder_hidden_size=128, encoder_intermediate_size=256, encoder_num_heads=1, fsq_dim=128)
_ACE15 |= dict(num_dit_layers=1, num_lyric_layers=1, num_timbre_layers=1, num_tokenizer_layers=1)

_OMNIGEN2: Config = dict(image_model="omnigen2", hidden_size=120, num_attention_heads=1, num_kv_heads=1, num_layers=1)
_OMNIGEN2 |= dict(num_refiner_layers=1, in_channels=16, patch_size=2, axes_dim_rope=[40, 40, 40], text_feat_dim=2048)
_OMNIGEN2 |= dict(axes_lens=[1024, 1664, 1664], timestep_scale=1000.0)

_HUNYUAN_IMAGE: Config = _HUNYUAN | dict(in_channels=64, out_channels=64, patch_size=[1, 1], axes_dim=[64, 64])
_HUNYUAN_IMAGE |= dict(vec_in_dim=None, guidance_embed=False, context_in_dim=3584)

_AURAFLOW: Config = dict(dim=128, n_heads=1, global_conddim=128, n_layers=2, n_double_layers=1)
_AURAFLOW |= dict(cond_seq_dim=2048, max_seq=256)

_ONE_BLOCK: Config = dict(num_layers=1, num_attention_heads=1)
_ERNIE: Config = _ONE_BLOCK | dict(image_model="ernie", hidden_size=128, ffn_hidden_size=256)

_HUNYUAN15: Config = _HUNYUAN | dict(in_channels=65, out_channels=32, patch_size=[1, 1, 1], vec_in_dim=None)
_HUNYUAN15 |= dict(context_in_dim=3584, guidance_embed=False, vision_in_dim=1152, meanflow_sum=True)
_HUNYUAN15 |= dict(use_cond_type_embedding=True, byt5=True)

_LONGCAT: Config = _FLUX | dict(guidance_embed=False, vec_in_dim=None, context_in_dim=3584, txt_ids_dims=[1, 2])

_LTXAV: Config = dict(image_model="ltxav", num_layers=1, caption_channels=64)
_LTXAV |= dict(attention_head_dim=4, cross_attention_dim=128, audio_attention_head_dim=4, audio_cross_attention_dim=128)
_LTXAV |= dict(connector_num_layers=1, connector_num_attention_heads=1, connector_attention_head_dim=64)

FLOWS: dict[str, Flow] = {
    "sd3.5": Flow("SD3", _sd3(2)),
    "flux": Flow("Flux", _FLUX),
    "flux-schnell": Flow("FluxSchnell", _FLUX | dict(guidance_embed=False)),
    "flux2": Flow("Flux2", _FLUX2),
    "wan2.1": Flow("WAN21_T2V", _WAN),
    "wan2.2-5b": Flow("WAN22_T2V", _WAN | dict(in_dim=48, out_dim=48)),
    "wan2.2-i2v": Flow("WAN21_T2V", _WAN | dict(in_dim=36)),
    "hunyuan-video": Flow("HunyuanVideo", _HUNYUAN),
    "hunyuan-image": Flow("HunyuanImage21", _HUNYUAN_IMAGE),
    "hunyuan-video-1.5": Flow("HunyuanVideo15", _HUNYUAN15),
    "longcat-image": Flow("LongCatImage", _LONGCAT),
    "ltxav": Flow("LTXAV", _LTXAV),
    "ltxv": Flow("LTXV", dict(image_model="ltxv", num_layers=1, attention_head_dim=4, cross_attention_dim=128)),
    "ace-step-1.5": Flow("ACEStep15", _ACE15, detected=False, since="0.20.1"),
    "lens": Flow("Lens", _LENS, since="0.26.0"),
    "krea2": Flow("Krea2", _KREA2, since="0.26.0"),
    "joyimage": Flow("JoyImage", _JOY, since="0.30.0"),
    "chroma": Flow("Chroma", _CHROMA, detected=False),
    "lumina2": Flow("Lumina2", _LUMINA2, detected=False),
    "z-image": Flow("ZImage", _Z_IMAGE, detected=False),
    "qwen-image": Flow("QwenImage", _ONE_BLOCK | dict(image_model="qwen_image"), detected=False),
    "auraflow": Flow("AuraFlow", _AURAFLOW, detected=False),
    "hidream": Flow("HiDream", _HIDREAM, detected=False),
    "omnigen2": Flow("Omnigen2", _OMNIGEN2, detected=False),
    "kandinsky5": Flow("Kandinsky5", _KANDINSKY, detected=False),
    "ernie": Flow("ErnieImage", _ERNIE, detected=False, since="0.20.1"),
    "mage-flow": Flow("MageFlow", _ONE_BLOCK | dict(image_model="mage_flow"), detected=False, since="0.30.0"),
}


def known_flows() -> list[str]:
    """The layouts that this ComfyUI has."""
    find_comfyui()
    from comfyui_version import __version__

    return [name for name, layout in FLOWS.items() if _numbers(layout.since) <= _numbers(__version__)]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def make_flow(path: Path, name: str, seed: int = 0) -> Path:
    """Write a transformer alone, as the diffusion model loader reads it (fp16)."""
    config = FLOWS[name].config
    # Lightricks' files say what cannot be read from the tensors.
    metadata = {"config": json.dumps({"transformer": config})} if config.get("image_model") == "ltxav" else None
    return save(flow(name, seed), path, metadata)


def make_qwen_image(path: Path, seed: int = 0) -> Path:
    """Write one block of Qwen-Image, as wide as ComfyUI takes for granted: zeros but at its two ends (fp16)."""
    find_comfyui()
    from comfy.supported_models import QwenImage

    config: Config = dict(image_model="qwen_image", in_channels=64, num_layers=1)
    shapes = shapes_of(lambda: QwenImage(config).get_model({}).diffusion_model)
    ends = ("img_in.weight", "proj_out.weight")
    return save(
        {name: _tensor(name, shape, seed).half() if name in ends else zeros(shape) for name, shape in shapes.items()},
        path,
    )


def make_low_rank_delta(
    path: Path, transformer: Path, edges: str = "1,0.9,0.75,0.5,0", layers: str = "", rank: int = 2, seed: int = 3
) -> Path:
    """Write a low-rank PeRFlow delta of the linear layers of a flow model's file, as Train PeRFlow Delta does (fp16).

    A checkpoint's transformer is below its prefix. edges: the sigmas of the windows; layers: in whose names this is.
    """
    delta: Tensors = {}
    with safe_open(str(transformer), "pt") as file:
        names = list(file.keys())
        prefix = UNET if any(name.startswith(UNET) for name in names) else ""
        for name in names:
            shape = file.get_slice(name).get_shape()
            if name.startswith(prefix) and name.endswith(".weight") and layers in name and len(shape) == 2:
                layer = f"diffusion_model.{name.removeprefix(prefix).removesuffix('.weight')}"
                up = 0.02 * torch.randn(shape[0], rank, generator=generator(f"{layer} up", seed))
                down = torch.randn(rank, shape[1], generator=generator(f"{layer} down", seed)) / math.sqrt(shape[1])
                delta |= lora_pair(layer, up.half(), down.half())
    facts = {"prediction_type": "velocity", "windows": str(edges.count(",")), "edges": edges}
    return save(delta, path, delta_metadata([rank], base_prediction="flow", **facts))


def flow(name: str, seed: int) -> Tensors:
    find_comfyui()
    import comfy.supported_models

    layout = FLOWS[name]
    model = getattr(comfy.supported_models, layout.kind)(layout.config).get_model({}).diffusion_model
    return {key: _tensor(key, tensor.shape, seed).half() for key, tensor in model.named_parameters()}


def _tensor(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Weights that keep the size of what passes through, of layers that training starts at zero too."""
    if len(shape) < 2:
        return torch.full(shape, 1.0 if name.endswith(("weight", "scale", "gamma")) else 0.0)
    return torch.randn(shape, generator=generator(name, seed)) / math.sqrt(math.prod(shape[1:]))
