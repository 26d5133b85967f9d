"""SD1.5 and SDXL at their real sizes, with random weights: what counts where seconds and memory are measured."""

from typing import Any

UNETS: dict[str, dict[str, Any]] = {
    "sd15": dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
    "sdxl": dict(
        sample_size=128,
        cross_attention_dim=2048,
        block_out_channels=(320, 640, 1280),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
}
VAE: dict[str, Any] = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2)
VAE |= dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
TEXT_ENCODERS: dict[str, dict[str, int]] = {
    "text_encoder": dict(vocab_size=49408, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "text_encoder_2": dict(vocab_size=49408, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20),
}


def enlarge(teacher: Any, kind: str, device: Any) -> None:
    """Networks of the real sizes in place of a small teacher's, made on the device: seconds on a GPU."""
    import diffusers
    import torch
    import transformers

    pipeline = teacher.pipeline
    with torch.device(device):
        teacher.unet = diffusers.UNet2DConditionModel(**UNETS[kind])
        parts = {"unet": teacher.unet, "vae": diffusers.AutoencoderKL(**VAE)}
        for name, sizes in TEXT_ENCODERS.items():
            small = getattr(pipeline, name, None)
            if small is not None:
                parts[name] = type(small)(transformers.CLIPTextConfig(**{**small.config.to_dict(), **sizes}))
    pipeline.register_modules(**parts)
