"""From the node's texts to edits of tokens, and a text of what was understood."""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ....perflow_core.editing.token_edit import TokenEdit, refine, replace
from .prompt_reading import Prompt

Kind = Literal["replace", "refine"]
Words = list[Hashable]


class Edit(NamedTuple):
    """One line of `edited`."""

    target: Prompt
    kind: Kind
    token_edit: TokenEdit
    emphasized: list[tuple[str, float]]

    def on_context(self, source: Prompt, length: int) -> TokenEdit:
        """For contexts of `length` tokens, which hold each prompt's own a whole number of times."""
        return self.token_edit.repeated(length // source.tokens.length, length // self.target.tokens.length)


def read_edits(
    source: Prompt,
    targets: Sequence[Prompt],
    kind: Literal["auto"] | Kind,
    factors: Sequence[tuple[str, Words, float]],
) -> list[Edit]:
    """replace needs as many words as the source has; where it cannot be, the edit is a refine."""
    edits = []
    for target in targets:
        replaces = kind != "refine" and len(source.tokens.words) == len(target.tokens.words)
        edit = (replace if replaces else refine)(source.tokens, target.tokens)
        found = [(text, factor, target.tokens.find(words)) for text, words, factor in factors]
        emphasis = {place: factor for _, factor, places in found for place in places}
        named = [(text, factor) for text, factor, places in found if places]
        edits.append(Edit(target, "replace" if replaces else "refine", edit.emphasized(emphasis), named))
    return edits


def marked(prompts: Sequence[Prompt], phrases: Sequence[Words], length: int) -> Tensor | None:
    """[1 + E, length]: 1 for the tokens of the phrases in each prompt; None where no prompt has any."""
    rows = []
    for prompt in prompts:
        row = torch.zeros(prompt.tokens.length)
        for words in phrases:
            row[prompt.tokens.find(words)] = 1
        rows.append(row.repeat(length // prompt.tokens.length))
    table = torch.stack(rows)
    return table if table.any() else None


def described(
    source: Prompt,
    edits: Sequence[Edit],
    factors: Sequence[tuple[str, Words, float]],
    blend: Sequence[tuple[str, Words]],
    wanted: Literal["auto"] | Kind,
) -> str:
    """What stands on the node: each edit, then what of the inputs has no effect."""
    lines = [f"Edit {i}: {_edit(source, edit, wanted)}" for i, edit in enumerate(edits, 1)]
    if not source.tokens.words:
        lines.append("The source is empty: the edits share only its layout.")
    prompts = [source, *(edit.target for edit in edits)]
    longest = max(prompt.tokens.length for prompt in prompts)
    if longest > 77:
        lines.append(f"Prompts take up to {longest} tokens, in parts of 77, as in CLIP Text Encode.")
    for text, words, _ in factors:
        if not any(edit.target.tokens.find(words) for edit in edits):
            lines.append(f'emphasis: "{text}" is in no edited prompt, so it has no effect.')
    missing = [text for text, words in blend if not any(prompt.tokens.find(words) for prompt in prompts)]
    lines += [f'blend: "{text}" is in no prompt, so it has no effect.' for text in missing]
    if blend and len(missing) == len(blend):
        lines.append("The whole picture may change.")
    return "\n".join(lines)


def _edit(source: Prompt, edit: Edit, wanted: Literal["auto"] | Kind) -> str:
    text = _change(source, edit)
    if wanted == "replace" and edit.kind == "refine":
        counts = len(source.tokens.words), len(edit.target.tokens.words)
        text += f" (replace needs equal numbers of words, here {counts[0]} and {counts[1]})"
    return text + "".join(f"; {word} times {factor:g}" for word, factor in edit.emphasized)


def _change(source: Prompt, edit: Edit) -> str:
    target = edit.target
    if target.tokens == source.tokens:
        if target.weights == source.weights:
            return "the same prompt" if edit.emphasized else "the same prompt, so it repeats the source"
        return "the same words with other weights"
    if edit.kind == "replace":
        changes = zip(source.tokens.words, target.tokens.words, source.spelling, target.spelling, strict=True)
        swapped = [f"{was} to {becomes}" for a, b, was, becomes in changes if a.name != b.name]
        return f"replace {', '.join(swapped)}"
    new = {place for place, own in enumerate(edit.token_edit.g.tolist()) if own}
    kept = zip(target.tokens.words, target.spelling, strict=True)
    words = [spelled for word, spelled in kept if any(target.tokens.places[token] in new for token in word.tokens)]
    return f"refine, new: {' '.join(words)}" if words else "refine, words left out"
