"""Flow-matching models in the sizes that their authors publish: diffusers folders with no numbers in them."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

T5 = dict(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
CLIP = dict(model_type="clip_text_model", vocab_size=49408)
LARGE = CLIP | dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
BIG = CLIP | dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20)
T5_XXL = T5 | dict(model_type="t5", vocab_size=32128)
AUTOENCODER = dict(
    _class_name="AutoencoderKL", block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, use_quant_conv=False,
    use_post_quant_conv=False, scaling_factor=1.0, shift_factor=0.0,
)  # fmt: skip


class Published(NamedTuple):
    """name: of the small model with its tokenizers and scheduler; numbers: of the transformer and the text encoders."""

    name: str
    numbers: tuple[int, int]
    parts: dict[str, tuple[str, dict[str, Any]]]  # the precision of its file, and what its config.json says


# By the configuration in training/configs. What is left out are diffusers' and transformers' defaults, which are those
# of the published models.
PUBLISHED = {
    "sd35": Published(  # Medium
        "sd3.5",
        (2_243_171_520, 5_580_000_000),
        {
            "transformer": ("BF16", dict(
                _class_name="SD3Transformer2DModel", num_layers=24, num_attention_heads=24, caption_projection_dim=1536,
                pooled_projection_dim=2048, pos_embed_max_size=384, qk_norm="rms_norm",
                dual_attention_layers=tuple(range(13)),
            )),
            "text_encoder": ("F16", LARGE | dict(projection_dim=768)),
            "text_encoder_2": ("F16", BIG | dict(projection_dim=1280)),
            "text_encoder_3": ("F16", T5_XXL),
            "vae": ("BF16", AUTOENCODER),
        },
    ),
    "flux": Published(
        "flux",
        (11_901_408_320, 4_885_000_000),
        {
            "transformer": ("BF16", dict(_class_name="FluxTransformer2DModel", guidance_embeds=True)),
            "text_encoder": ("BF16", LARGE),
            "text_encoder_2": ("BF16", T5_XXL),
            "vae": ("BF16", AUTOENCODER),
        },
    ),
    "z_image": Published(
        "z-image",
        (6_150_000_000, 4_020_000_000),
        {
            "transformer": ("BF16", dict(_class_name="ZImageTransformer2DModel")),
            "text_encoder": ("BF16", dict(
                model_type="qwen3", hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
                num_attention_heads=32, num_key_value_heads=8, head_dim=128, vocab_size=151936,
            )),
            "vae": ("BF16", AUTOENCODER),
        },
    ),
    "qwen_image": Published(
        "qwen-image",
        (20_430_401_088, 8_290_000_000),
        {
            "transformer": ("BF16", dict(_class_name="QwenImageTransformer2DModel")),
            "text_encoder": ("BF16", dict(
                model_type="qwen2_5_vl",
                text_config=dict(
                    model_type="qwen2_5_vl_text", hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                    num_attention_heads=28, num_key_value_heads=4, vocab_size=152064,
                ),
                vision_config=dict(
                    model_type="qwen2_5_vl", depth=32, hidden_size=1280, num_heads=16, intermediate_size=3420,
                    out_hidden_size=3584,
                ),
            )),
            "vae": ("BF16", dict(_class_name="AutoencoderKLQwenImage")),
        },
    ),
    "wan21": Published(  # 1.3B
        "wan2.1",
        (1_418_996_800, 5_680_000_000),
        {
            "transformer": ("F32", dict(
                _class_name="WanTransformer3DModel", num_attention_heads=12, ffn_dim=8960, num_layers=30
            )),
            "text_encoder": ("F32", T5 | dict(model_type="umt5", vocab_size=256384)),
            "vae": ("F32", dict(_class_name="AutoencoderKLWan")),
        },
    ),
}  # fmt: skip


def published_folder(small: Path, folder: Path, model: Published) -> Path:
    """A folder like the small model's, with these sizes, whose files have a header and nothing else."""
    shutil.copytree(small, folder, ignore=shutil.ignore_patterns("*.safetensors*", "unpacked"))
    for part, (precision, values) in model.parts.items():
        architectures = json.loads((folder / part / "config.json").read_text()).get("architectures")
        said = {"architectures": architectures} if architectures else {}
        (folder / part / "config.json").write_text(json.dumps(said | values))
        itemsize = 4 if precision == "F32" else 2
        header = json.dumps({"one": {"dtype": precision, "shape": [1], "data_offsets": [0, itemsize]}}).encode()
        content = len(header).to_bytes(8, "little") + header + bytes(itemsize)
        (folder / part / "model.safetensors").write_bytes(content)
    return folder


def numbers(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())
