"""Small teachers in diffusers' layout; the width of the text embeddings chooses SD1.5, SD2.x or SDXL."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

NARROW: dict[str, Any] = dict(
    sample_size=8,
    block_out_channels=(32, 64),
    layers_per_block=1,
    norm_num_groups=8,
    attention_head_dim=4,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)
SDXL_EXTRAS: dict[str, Any] = dict(
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=1280 + 6 * 256,
    use_linear_projection=True,
)
SCHEDULER = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
SCHEDULER |= dict(clip_sample=False, steps_offset=1)


def make_teacher(folder: Path, width: int = 768, predicts: str = "epsilon", taesd: bool = False, seed: int = 0) -> Path:
    """Write a diffusers folder of random weights: width 768 is SD1.5, 1024 SD2.x, 2048 SDXL."""
    torch.manual_seed(seed)
    extras = SDXL_EXTRAS if width == 2048 else {"use_linear_projection": width == 1024}
    unet = diffusers.UNet2DConditionModel(**NARROW, cross_attention_dim=width, **extras)
    unet.save_pretrained(folder / "unet")
    _vae(taesd).save_pretrained(folder / "vae")
    diffusers.DDIMScheduler(**SCHEDULER, prediction_type=predicts).save_pretrained(folder / "scheduler")
    tokenizer(folder / "tokenizer")
    first, second = (768, 1280) if width == 2048 else (width, 0)
    transformers.CLIPTextModel(text_config(first)).save_pretrained(folder / "text_encoder")
    if second:
        tokenizer(folder / "tokenizer_2")
        encoder = transformers.CLIPTextModelWithProjection(text_config(second, projection_dim=second))
        encoder.save_pretrained(folder / "text_encoder_2")
    return folder


def _vae(taesd: bool) -> Any:
    if taesd:
        return diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1,) * 4,
            num_decoder_blocks=(1,) * 4,
        )  # fmt: skip
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.18215,
    )


def text_config(width: int, **other: Any) -> transformers.CLIPTextConfig:
    return transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=512, eos_token_id=513, **other,
    )  # fmt: skip


def tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with its 256 bytes, alone and at a word's end, and no merges."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    kind = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")
