"""The narrow UNet: SD1.5's layout with 64 channels instead of 320 and three levels instead of four."""

from __future__ import annotations

from diffusers import UNet2DConditionModel

CONFIG = dict(
    sample_size=16,
    block_out_channels=(64, 128, 128),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=768,
    attention_head_dim=8,  # in diffusers' SD1.5 this is the number of heads
)


def narrow_unet() -> UNet2DConditionModel:
    """With random weights: [B, 4, 16, 16], timesteps [B] and context [B, 77, 768] to the noise."""
    return UNet2DConditionModel(**CONFIG)
