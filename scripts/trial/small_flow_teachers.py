"""Small flow-matching models in diffusers' layout: random transformers with text encoders and autoencoders for them.

Text encoders have the widths that ComfyUI takes for granted. What is trained is as narrow as both take it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import tokenizers
import torch
import transformers

from .small_teachers import text_config, tokenizer

LETTERS = [chr(code) for code in range(32, 127)]
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}|"  # as a Jinja template
CLIP, WIDER_CLIP, T5 = 768, 1280, 4096  # widths


def make_flow_teacher(folder: Path, name: str, seed: int = 0) -> Path:
    """Write a diffusers folder; name: sd3.5, flux, z-image, qwen-image or wan2.1, as the small models for ComfyUI."""
    torch.manual_seed(seed)
    pipeline = MAKERS[name](folder / "unpacked")
    with torch.no_grad():
        for weight in pipeline.transformer.parameters():
            if weight.ndim > 1:  # layers that a model's training begins at zero, too
                weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
            else:
                weight.add_(0.1 * torch.randn_like(weight))
    pipeline.save_pretrained(folder)
    return folder


def _sd35(folder: Path) -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, num_layers=2, num_attention_heads=2, caption_projection_dim=128, joint_attention_dim=T5,
        pooled_projection_dim=CLIP + WIDER_CLIP, pos_embed_max_size=8, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    words = _clip_tokenizer(folder)
    return diffusers.StableDiffusion3Pipeline(
        transformer,
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        _autoencoder(),
        transformers.CLIPTextModelWithProjection(text_config(CLIP, projection_dim=CLIP)),
        words,
        transformers.CLIPTextModelWithProjection(text_config(WIDER_CLIP, projection_dim=WIDER_CLIP)),
        words,
        transformers.T5EncoderModel(_t5_config(transformers.T5Config)),
        _t5_tokenizer(),
    )


def _flux(folder: Path) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        num_layers=1, num_single_layers=1, num_attention_heads=1, guidance_embeds=True
    )
    return diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        _autoencoder(),
        transformers.CLIPTextModel(text_config(CLIP)),
        _clip_tokenizer(folder),
        transformers.T5EncoderModel(_t5_config(transformers.T5Config)),
        _t5_tokenizer(),
        transformer,
    )


def _z_image(folder: Path) -> Any:
    """Of 9 heads: at fewer, the two programs round the widths of its layers apart."""
    width = 2560
    transformer = diffusers.ZImageTransformer2DModel(
        dim=9 * 128, n_heads=9, n_kv_heads=9, n_layers=1, n_refiner_layers=0, cap_feat_dim=width
    )
    encoder = transformers.Qwen3Model(transformers.Qwen3Config(**_qwen(width), num_attention_heads=1, head_dim=16))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.ZImagePipeline(scheduler, _autoencoder(), encoder, _letters(chat_template=CHAT), transformer)


def _qwen_image(folder: Path) -> Any:
    width = 3584
    transformer = diffusers.QwenImageTransformer2DModel(num_layers=1, num_attention_heads=1)
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=1, out_hidden_size=width)
    config = transformers.Qwen2_5_VLConfig(
        text_config=_qwen(width) | dict(num_attention_heads=width // 128), vision_config=vision
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=0.9)
    vae = diffusers.AutoencoderKLQwenImage(base_dim=8, z_dim=16, num_res_blocks=1)
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(config)
    return diffusers.QwenImagePipeline(scheduler, vae, encoder, _letters(), transformer)


def _wan(folder: Path) -> Any:
    transformer = diffusers.WanTransformer3DModel(num_attention_heads=1, ffn_dim=256, num_layers=1)
    return diffusers.WanPipeline(
        _t5_tokenizer(),
        transformers.UMT5EncoderModel(_t5_config(transformers.UMT5Config)),
        diffusers.AutoencoderKLWan(base_dim=8, num_res_blocks=1),
        diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=5.0, prediction_type="flow_prediction"),
        transformer,
    )


MAKERS: dict[str, Callable[[Path], Any]] = {
    "sd3.5": _sd35,
    "flux": _flux,
    "z-image": _z_image,
    "qwen-image": _qwen_image,
    "wan2.1": _wan,
}


def _autoencoder() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, latent_channels=16,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, norm_num_groups=4, use_quant_conv=False,
        use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609,
    )  # fmt: skip


def _clip_tokenizer(folder: Path) -> Any:
    tokenizer(folder)
    return transformers.CLIPTokenizer.from_pretrained(folder)


def _t5_config(kind: Any) -> Any:
    return kind(vocab_size=len(LETTERS) + 2, d_model=T5, d_kv=8, d_ff=16, num_layers=1, num_heads=1)


def _t5_tokenizer() -> Any:
    return _letters(eos="</s>")


def _qwen(width: int) -> dict[str, Any]:
    return dict(
        vocab_size=len(LETTERS) + 2, hidden_size=width, intermediate_size=16, num_hidden_layers=1,
        num_key_value_heads=1, max_position_embeddings=1024,
    )  # fmt: skip


def _letters(eos: str = "", **options: Any) -> Any:
    """A tokenizer of ASCII, letter by letter; with eos it ends each text with that."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", *LETTERS])}
    of_letters = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="</s>"))
    of_letters.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    if eos:
        of_letters.post_processor = tokenizers.processors.TemplateProcessing(f"$A {eos}", None, [(eos, 1)])
    kind = transformers.PreTrainedTokenizerFast
    return kind(tokenizer_object=of_letters, pad_token="<pad>", eos_token="</s>", **options)
