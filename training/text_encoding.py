"""Embeddings of prompts of any length, by Stable Diffusion's text encoders, as ComfyUI makes them.

A prompt is cut after every 75 tokens; each chunk is encoded alone, with its own beginning and end, in 77 tokens, and
the embeddings of the chunks follow each other. SDXL's pooled embedding is that of the first chunk.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LAST = {"SD1.5": -1, "SD2.x": -2, "SDXL": -2}  # the layer that each kind takes, in ComfyUI's count


def layers(encoder: Any) -> int:
    return int(encoder.config.num_hidden_layers)


def encode(
    tokenizers: Sequence[Any], encoders: Sequence[Any], texts: Sequence[str], architecture: str, clip_skip: int
) -> tuple[Tensor, Tensor]:
    """Embeddings [B, 77 * chunks of the longest, width], zeros where a prompt has fewer chunks; pooled [B, width].

    clip_skip: the number of ComfyUI's CLIP Set Last Layer, -1 for the last layer of the text encoder; 0 is the
    model's own. The pooled embedding is of width 0 but for SDXL.
    """
    of_each = [[_chunks(tokenizer, text) for text in texts] for tokenizer in tokenizers]
    counts = [max(map(len, chunks)) for chunks in zip(*of_each, strict=True)]
    parts = []
    for tokenizer, encoder, chunks in zip(tokenizers, encoders, of_each, strict=True):
        filled = [some + [[]] * (count - len(some)) for some, count in zip(chunks, counts, strict=True)]
        parts.append(_encoded(tokenizer, encoder, [chunk for some in filled for chunk in some]))
    layer = clip_skip or LAST[architecture]
    embeddings = torch.cat([_layer(encoder, out, layer, architecture) for (encoder, out) in parts], dim=-1)
    out = parts[-1][1]
    first = torch.tensor([sum(counts[:i]) for i in range(len(counts))], device=embeddings.device)
    pooled = out.text_embeds[first] if architecture == "SDXL" else embeddings[first, 0, :0]
    rows = [some.flatten(0, 1) for some in torch.split(embeddings, counts)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), pooled


def _chunks(tokenizer: Any, text: str) -> list[list[int]]:
    """Tokens without beginning and end, at most 75 in each; one empty chunk for an empty text."""
    size = tokenizer.model_max_length - 2
    tokens = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return [tokens[start : start + size] for start in range(0, len(tokens), size)] or [[]]


def _encoded(tokenizer: Any, encoder: Any, chunks: Sequence[list[int]]) -> tuple[Any, Any]:
    """The encoder, and what it makes of all chunks."""
    size = tokenizer.model_max_length
    whole = [[tokenizer.bos_token_id, *chunk, tokenizer.eos_token_id] for chunk in chunks]
    tokens = [chunk + [tokenizer.pad_token_id] * (size - len(chunk)) for chunk in whole]
    seen = [[1] * len(chunk) + [0] * (size - len(chunk)) for chunk in whole]
    masked = getattr(encoder.config, "use_attention_mask", False)
    mask = torch.tensor(seen, device=encoder.device) if masked else None
    ids = torch.tensor(tokens, device=encoder.device)
    return encoder, encoder(ids, attention_mask=mask, output_hidden_states=True)


def _layer(encoder: Any, out: Any, layer: int, architecture: str) -> Tensor:
    """Of SD1.5 and SD2.x, whose last layer diffusers leaves out for the latter, through the last norm."""
    if architecture == "SDXL":
        hidden: Tensor = out.hidden_states[layer]
        return hidden
    if not out.hidden_states:  # of an encoder without layers
        last: Tensor = out.last_hidden_state
        return last
    normed: Tensor = getattr(encoder, "text_model", encoder).final_layer_norm(
        out.hidden_states[layer - LAST[architecture] - 1]
    )
    return normed
