"""CLIP-L's tokenizer and architecture with made-up weights: each word has a fixed random direction.

All 12 layers add nothing, so the text model gives LayerNorm(word + position). That is enough for a small grammar, needs
no training, and is made again from its seed wherever it is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORDS, POSITIONS, WIDTH, LAYERS = 49408, 77, 768, 12
_SEED = 77
_POSITION_SIZE = 0.3  # beside words of size 1: who comes first matters less than who is there
PLACES = 25  # from here on all positions are alike: captions are shorter, and what fills them up can be counted as one


def embeddings() -> tuple[Tensor, Tensor]:
    """Vectors of the words [49408, 768] and of the positions [77, 768]."""
    random = torch.Generator().manual_seed(_SEED)
    words = torch.randn(WORDS, WIDTH, generator=random)
    places = torch.randn(PLACES, WIDTH, generator=random)
    return words, _POSITION_SIZE * places[torch.arange(POSITIONS).clamp(max=PLACES - 1)]


def features(tokens: Tensor, words: Tensor, positions: Tensor) -> Tensor:
    """What the text model gives for tokens [B, n]: [B, n, 768]."""
    return torch.nn.functional.layer_norm(words[tokens] + positions, (WIDTH,))


def pooled(tokens: Tensor, words: Tensor, positions: Tensor) -> Tensor:
    """What the text model gives for whole captions, [B, 768]: its features at the first end word of tokens [B, 77]."""
    end = (tokens == WORDS - 1).int().argmax(1)
    return features(tokens[torch.arange(len(tokens)), end], words, positions[end])


def text_model(prefix: str = "text_model.") -> dict[str, Tensor]:
    """The weights of CLIP-L by the names of transformers."""
    words, positions = embeddings()
    weights = {
        f"{prefix}embeddings.token_embedding.weight": words,
        f"{prefix}embeddings.position_embedding.weight": positions,
        f"{prefix}final_layer_norm.weight": torch.ones(WIDTH),
        f"{prefix}final_layer_norm.bias": torch.zeros(WIDTH),
    }
    for layer in range(LAYERS):
        name = f"{prefix}encoder.layers.{layer}."
        for part, (out, inner) in _LINEAR.items():
            weights[f"{name}{part}.weight"] = torch.zeros(1).expand(out, inner)
            weights[f"{name}{part}.bias"] = torch.zeros(out)
        for norm in ("layer_norm1", "layer_norm2"):
            weights[f"{name}{norm}.weight"] = torch.ones(WIDTH)
            weights[f"{name}{norm}.bias"] = torch.zeros(WIDTH)
    return weights


_LINEAR = {f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")} | {
    "mlp.fc1": (4 * WIDTH, WIDTH),
    "mlp.fc2": (WIDTH, 4 * WIDTH),
}
