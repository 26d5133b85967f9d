"""Prompts as ComfyUI's CLIP reads them: tokens, words, and the CONDITIONING of several as one batch."""

from collections.abc import Hashable, Sequence
from math import lcm
from typing import Any, NamedTuple

import torch
from comfy.sd import CLIP
from torch import Tensor

from ....perflow_core.editing.prompt_tokens import PromptTokens, Word

WORD_END = "</w>"  # how CLIP's vocabulary marks the last token of a word


class Prompt(NamedTuple):
    """A prompt, its tokens, and its words as CLIP spells them."""

    text: str
    tokens: PromptTokens
    spelling: tuple[str, ...]
    weights: tuple[float, ...]


def read_prompt(clip: CLIP, text: str) -> Prompt:
    """A prompt with ComfyUI's weighting syntax and embeddings. Raises ValueError where CLIP is not Stable Diffusion's.

    SDXL's two encoders have one vocabulary, so the first is read; an embedding of unequal lengths is refused.
    """
    encoders = clip.tokenize(text, return_word_ids=True)
    if not set(encoders) <= {"l", "h", "g"}:
        raise ValueError(
            f"Prompt-to-Prompt got a clip with the encoders {', '.join(encoders)}, expected that of SD1.5, SD2.x or "
            "SDXL: connect the clip of such a checkpoint."
        )
    read = [_read(clip, text, chunks) for chunks in encoders.values()]
    if any(prompt.tokens.places != read[0].tokens.places for prompt in read):
        raise ValueError(
            f'"{text}" has {" and ".join(str(len(prompt.tokens.ids)) for prompt in read)} tokens for the two text '
            "encoders, expected the same ones: leave out the embedding that is made for one of them."
        )
    return read[0]


def phrase(clip: CLIP, text: str) -> list[Hashable]:
    """The words of a text, as `PromptTokens.find` takes them."""
    return [word.name for word in read_prompt(clip, text).tokens.words]


def _read(clip: CLIP, text: str, chunks: Sequence[Sequence[Any]]) -> Prompt:
    ids: list[Hashable] = ["start"]
    places, weights, words, spelling = [0], [], [], []
    begun: list[int] = []
    spelled = ""
    length = len(chunks[0])
    for chunk, tokens in enumerate(chunks):
        for place, (token, weight, word_id) in enumerate(tokens):
            if word_id == 0:  # start, end and padding
                continue
            is_embedding = isinstance(token, Tensor)
            begun.append(len(ids))
            spelled += "embedding" if is_embedding else clip.tokenizer.untokenize([(token, 1.0)])[0][1]
            ids.append(tuple(token.tolist()) if is_embedding else token)  # embeddings differ by their numbers
            places.append(chunk * length + place)
            weights.append(weight)
            if is_embedding or spelled.endswith(WORD_END):
                words.append(Word(tuple(ids[i] for i in begun), tuple(begun)))
                spelling.append(spelled.removesuffix(WORD_END))
                begun, spelled = [], ""
    tokens = PromptTokens((*ids, "end"), (*places, places[-1] + 1), tuple(words), length * len(chunks))
    return Prompt(text, tokens, tuple(spelling), tuple(weights))


def encode_batch(clip: CLIP, prompts: Sequence[Prompt]) -> list[list[Any]]:
    """One CONDITIONING whose rows are the prompts; shorter contexts are repeated, as ComfyUI does between prompts."""
    encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(prompt.text)) for prompt in prompts]
    return [_batch(entries) for entries in zip(*encoded, strict=True)]


def _batch(entries: Sequence[tuple[Tensor, dict[str, Any]]]) -> list[Any]:
    """Prompts of one entry: clips with scheduled LoRAs give several, each for a part of the steps."""
    length = lcm(*(cond.shape[1] for cond, _ in entries))
    cond = torch.cat([cond.repeat(1, length // cond.shape[1], 1) for cond, _ in entries])
    options = dict(entries[0][1])
    if options.get("pooled_output") is not None:
        options["pooled_output"] = torch.cat([options["pooled_output"] for _, options in entries])
    return [cond, options]
