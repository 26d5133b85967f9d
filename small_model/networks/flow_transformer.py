"""The flow model's layout: SD3.5's transformer at depth 4, without widening.

The training leaves out what a checkpoint has only to be SD3's shape: the columns for CLIP-G and T5, which get zeros,
and all but one of the places that fill up a caption.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .text_model import PLACES, POSITIONS, WIDTH

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

CHANNELS = 16  # of the latents
DEPTH = 4  # SD3's transformers have a head of 64 channels for each block
MULTIPLIER = 1000  # the transformer is told 1000 sigma
DIFFUSERS_CONFIG: dict[str, Any] = dict(
    sample_size=16,
    pos_embed_max_size=16,  # in patches: pictures of up to 256 pixels
    in_channels=CHANNELS,
    out_channels=CHANNELS,
    num_layers=DEPTH,
    num_attention_heads=DEPTH,
    attention_head_dim=64,
    caption_projection_dim=64 * DEPTH,
    joint_attention_dim=WIDTH,
    pooled_projection_dim=WIDTH,
    qk_norm="rms_norm",
)


def flow_transformer() -> SD3Transformer2DModel:
    """With random weights: latents [B, 16, h, w], captions [B, PLACES, 768] and [B, 768], 1000 sigma [B] to velocities.

    The velocity is noise - x0. Attention counts the last place of a caption as often as a whole caption has it.
    """
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(**DIFFUSERS_CONFIG)
    model.set_attn_processor(JointAttention())
    places = model.pos_embed
    places.register_buffer("pos_embed", places.pos_embed, persistent=False)  # sines of the place: nothing to store
    return model


class JointAttention:
    """softmax(q k^T / sqrt(64) + log n) v over the picture's tokens and the caption's; n: how often a token is there.

    As diffusers' JointAttnProcessor2_0, which takes no counts. Source: https://arxiv.org/abs/2403.03206, section 4.
    """

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None
    ) -> tuple[Tensor, Tensor]:
        picture, words = hidden_states, encoder_hidden_states

        def heads(x: Tensor) -> Tensor:
            return x.reshape(*x.shape[:2], attn.heads, -1).transpose(1, 2)

        q = torch.cat([attn.norm_q(heads(attn.to_q(picture))), attn.norm_added_q(heads(attn.add_q_proj(words)))], 2)
        k = torch.cat([attn.norm_k(heads(attn.to_k(picture))), attn.norm_added_k(heads(attn.add_k_proj(words)))], 2)
        v = torch.cat([heads(attn.to_v(picture)), heads(attn.add_v_proj(words))], 2)
        count = q.new_zeros(q.shape[2])
        count[-1] = math.log(POSITIONS - PLACES + 1)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, count.expand(len(count), -1))
        mixed = mixed.transpose(1, 2).flatten(2)
        picture, words = mixed[:, : picture.shape[1]], mixed[:, picture.shape[1] :]
        return attn.to_out[0](picture), words if attn.context_pre_only else attn.to_add_out(words)
