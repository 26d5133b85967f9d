"""A prompt in cross attention: tokens at places in the context, and the words that they make."""

import math
import re
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from ..errors import shown

NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)"


class Word(NamedTuple):
    """A word and its tokens, as positions in `PromptTokens.ids`."""

    name: Hashable  # equal for equal words: the text, or the tokens' ids
    tokens: tuple[int, ...]


class PromptTokens(NamedTuple):
    """Start, words and end of a prompt, without padding."""

    ids: tuple[Hashable, ...]
    places: tuple[int, ...]  # where each token lies in the context
    words: tuple[Word, ...]
    length: int  # tokens of the whole context, padding included: 77 a chunk

    def find(self, phrase: Sequence[Hashable]) -> list[int]:
        """Places of all tokens of some words in a row, wherever the prompt has them; empty where it does not."""
        names = [word.name for word in self.words]
        runs = [i for i in range(len(names)) if names[i : i + len(phrase)] == list(phrase)] if phrase else []
        found = {token for i in runs for word in self.words[i : i + len(phrase)] for token in word.tokens}
        return [self.places[token] for token in sorted(found)]


def parse_phrases(text: str) -> list[str]:
    """The phrases of "cat, red hat", separated by commas or lines."""
    return [" ".join(part.split()) for part in re.split(r"[,\n]", text) if part.strip()]


def parse_emphasis(text: str) -> list[tuple[str, float]]:
    """Phrases and factors of "snowy 2, red hat 0.5". Raises ValueError for a part without both."""
    emphasis = []
    for part in parse_phrases(text):
        phrase, _, factor = part.rpartition(" ")
        if not phrase or not re.fullmatch(NUMBER, factor) or math.isinf(float(factor)):
            raise ValueError(
                f'emphasis has "{shown(part, 40)}", expected a word and a number: write it like "snowy 2, red 0.5".'
            )
        emphasis.append((phrase, float(factor)))
    return emphasis
