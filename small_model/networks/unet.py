"""The UNet's layout: SD1.5's with three levels for four, one block a level, and 64 channels for 320."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CHANNELS = 64
# What differs from SD1.5's configuration in ComfyUI's words; its channels are model_channels.
COMFYUI_LAYOUT: dict[str, Any] = dict(
    channel_mult=[1, 2, 2],
    num_res_blocks=[1, 1, 1],
    transformer_depth=[0, 1, 1],
    transformer_depth_output=[0, 0, 1, 1, 1, 1],
)
DIFFUSERS_CONFIG: dict[str, Any] = dict(
    sample_size=16,
    block_out_channels=tuple(CHANNELS * times for times in COMFYUI_LAYOUT["channel_mult"]),
    layers_per_block=1,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=768,
    attention_head_dim=8,  # in diffusers' SD1.5 this is the number of heads
)


def narrow_unet() -> UNet2DConditionModel:
    """With random weights: [B, 4, 16, 16], timesteps [B] and context [B, 77, 768] to the noise."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**DIFFUSERS_CONFIG)
