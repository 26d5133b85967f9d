"""What differs between the flow-matching models of diffusers: one description for each, by its pipeline's name.

A call gives the transformer x [B, C, h, w] (of Wan [B, C, frames, h, w]), the level sigma [B] and the prompts, and
takes the velocity v = noise - data of x's shape from it. What a model says itself is asked of it in `flow_teacher`:
shift, latents, text length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from torch.nn.utils.rnn import pad_sequence

from perflow_core.sampling.windows import NUM_TIMESTEPS
from perflow_core.weights import transformer_names
from perflow_core.weights.transformer_names import TransformerNames

from .teacher import Prompts

Call = Callable[[Any, Tensor, Tensor, Prompts, Tensor | None], Tensor]


@dataclass(frozen=True)
class FlowFamily:
    """architecture: ComfyUI's class; channels: that its transformer reads; encode: texts in so many tokens, by its
    pipeline; names: of a transformer's weights for ComfyUI; width: what its configuration calls that of a token of a
    prompt; before: so many tokens of another text encoder; frames: latents have a dimension of time.
    """

    architecture: str
    channels: int
    call: Call
    encode: Callable[[Any, list[str], int, torch.device], Prompts]
    names: Callable[[Any], TransformerNames]
    width: str = "joint_attention_dim"
    before: int = 0
    frames: bool = False


def _packed(x: Tensor) -> Tensor:
    """Patches of 2 x 2 places: [B, C, h, w] -> [B, h/2 w/2, 4 C]."""
    return pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)


def _unpacked(patches: Tensor, like: Tensor) -> Tensor:
    h, w = like.shape[-2:]
    return pixel_shuffle(patches.transpose(1, 2).reshape(len(patches), -1, h // 2, w // 2), 2)


def _without_pooled(embeddings: Tensor) -> Prompts:
    return Prompts(embeddings, embeddings[:, 0, :0])


def _of_lengths(embeddings: Any, tokens: int) -> Prompts:
    """Of embeddings of different lengths, zeros after each."""
    return _without_pooled(pad_sequence(list(embeddings), batch_first=True)).filled_up(tokens)


def _call_sd3(transformer: Any, x: Tensor, sigma: Tensor, prompts: Prompts, guidance: Tensor | None) -> Tensor:
    return transformer(
        hidden_states=x,
        timestep=NUM_TIMESTEPS * sigma,
        encoder_hidden_states=prompts.embeddings,
        pooled_projections=prompts.pooled,
        return_dict=False,
    )[0]  # fmt: skip


def _encode_sd3(pipeline: Any, texts: list[str], tokens: int, device: torch.device) -> Prompts:
    encoded = pipeline.encode_prompt(
        texts, None, None, device, do_classifier_free_guidance=False, max_sequence_length=tokens
    )
    return Prompts(encoded[0], encoded[2])


def _sd3_names(transformer: Any) -> TransformerNames:
    """Of the last block's text only scale and shift are left, in the order of an end."""
    last = transformer.config.num_layers - 1
    return TransformerNames(
        transformer_names.SD3, frozenset({"norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear"})
    )


def _call_flux(transformer: Any, x: Tensor, sigma: Tensor, prompts: Prompts, guidance: Tensor | None) -> Tensor:
    h, w = x.shape[-2:]
    patches = transformer(
        hidden_states=_packed(x),
        timestep=sigma,
        guidance=guidance,
        encoder_hidden_states=prompts.embeddings,
        pooled_projections=prompts.pooled,
        txt_ids=x.new_zeros(prompts.embeddings.shape[1], 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(len(x), h // 2, w // 2, x.device, x.dtype),
        return_dict=False,
    )[0]
    return _unpacked(patches, x)


def _encode_flux(pipeline: Any, texts: list[str], tokens: int, device: torch.device) -> Prompts:
    embeddings, pooled, _ = pipeline.encode_prompt(texts, None, device, max_sequence_length=tokens)
    return Prompts(embeddings, pooled)


def _call_z_image(transformer: Any, x: Tensor, sigma: Tensor, prompts: Prompts, guidance: Tensor | None) -> Tensor:
    """It is told 1 - sigma, and gives data - noise."""
    texts = [row[:length] for row, length in zip(prompts.embeddings, prompts.lengths, strict=True)]
    out = transformer(list(x[:, :, None]), 1 - sigma, texts, return_dict=False)[0]
    return -torch.stack(out)[:, :, 0]


def _encode_z_image(pipeline: Any, texts: list[str], tokens: int, device: torch.device) -> Prompts:
    # Its function writes into the list that it is given.
    embeddings, _ = pipeline.encode_prompt(
        list(texts), device, do_classifier_free_guidance=False, max_sequence_length=tokens
    )
    return _of_lengths(embeddings, tokens)


def _call_qwen_image(transformer: Any, x: Tensor, sigma: Tensor, prompts: Prompts, guidance: Tensor | None) -> Tensor:
    counted = prompts.counted
    longest = max(prompts.lengths)  # what is padding for all rows need not be computed
    h, w = x.shape[-2:]
    patches = transformer(
        hidden_states=_packed(x),
        timestep=sigma,
        encoder_hidden_states=prompts.embeddings[:, :longest],
        encoder_hidden_states_mask=counted[:, :longest],
        img_shapes=[[(1, h // 2, w // 2)]] * len(x),
        return_dict=False,
    )[0]
    return _unpacked(patches, x)


def _encode_qwen_image(pipeline: Any, texts: list[str], tokens: int, device: torch.device) -> Prompts:
    embeddings, _ = pipeline.encode_prompt(texts, device, max_sequence_length=tokens)
    return _of_lengths(embeddings, tokens)


def _call_wan(transformer: Any, x: Tensor, sigma: Tensor, prompts: Prompts, guidance: Tensor | None) -> Tensor:
    return transformer(
        hidden_states=x,
        timestep=NUM_TIMESTEPS * sigma,
        encoder_hidden_states=prompts.embeddings,
        return_dict=False,
    )[0]  # fmt: skip


def _encode_wan(pipeline: Any, texts: list[str], tokens: int, device: torch.device) -> Prompts:
    encoded = pipeline.encode_prompt(
        texts, do_classifier_free_guidance=False, max_sequence_length=tokens, device=device
    )
    return _without_pooled(encoded[0])


FAMILIES = {
    "StableDiffusion3Pipeline": FlowFamily("SD3", 16, _call_sd3, _encode_sd3, _sd3_names, before=77),
    "FluxPipeline": FlowFamily(
        "Flux", 64, _call_flux, _encode_flux,
        lambda transformer: TransformerNames(transformer_names.FLUX, frozenset({"norm_out.linear"})),
    ),
    "ZImagePipeline": FlowFamily(
        "Lumina2", 16, _call_z_image, _encode_z_image,
        lambda transformer: TransformerNames(transformer_names.Z_IMAGE), width="cap_feat_dim",
    ),
    "QwenImagePipeline": FlowFamily(
        "QwenImage", 64, _call_qwen_image, _encode_qwen_image, lambda transformer: TransformerNames({})
    ),
    "WanPipeline": FlowFamily(
        "WAN21", 16, _call_wan, _encode_wan,
        lambda transformer: TransformerNames(transformer_names.WAN), width="text_dim", frames=True,
    ),
}  # fmt: skip
