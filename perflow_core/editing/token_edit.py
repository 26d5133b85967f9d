"""Prompt-to-Prompt (Hertz et al. 2022): cross attention of an edited prompt, looked up in the source's.

An edit replaces the target's map A_t by a mixture with the source's map A_s, a matrix over tokens. So the edited output
is a sum of two ordinary attentions with other values, and no map is ever needed:

    out = A_s (M (alpha v)) + A_t ((g alpha + 1 - alpha) v)

At the end: in which steps the attention is edited (alpha).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..sampling import tolerances
from .prompt_tokens import PromptTokens


class TokenEdit(NamedTuple):
    """M [L_s, L_t], what target tokens take from the source's map, and g [L_t], what they keep of their own; float64.

    The edited map is A_s M + A_t g while the edit lasts (alpha = 1). One edit, or several stacked in front.
    """

    M: Tensor
    g: Tensor

    def values(self, v: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """The two attentions' values: M (alpha v) for the source's map, (g alpha + 1 - alpha) v for the target's own.

        v of shape [..., L_t, C]; alpha of the shape of g, or a scalar.
        """
        alpha = alpha.expand_as(self.g)[..., None]
        g = self.g[..., None]
        return self.M @ (alpha * v), (g * alpha + 1 - alpha) * v

    def emphasized(self, factors: Mapping[int, float]) -> "TokenEdit":
        """Reweight: the edited map times a factor for every place in the target's context; nothing is renormalised."""
        e = torch.ones_like(self.g)
        for place, factor in factors.items():
            e[place] = factor
        return TokenEdit(self.M * e, self.g * e)

    def repeated(self, source: int, target: int) -> "TokenEdit":
        """The same edit of contexts that hold the prompts several times over, as ComfyUI makes them equally long."""
        M = self.M.repeat(source, target) / target  # a token's copies share what it takes
        return TokenEdit(M, self.g.repeat(target))


def replace(source: PromptTokens, target: PromptTokens) -> TokenEdit:
    """Replace: every word takes the map of the word at its place; swapped words of several tokens share it evenly.

    As in the official code, tokens behind the last swapped word take the source's map at their own place, even where
    the words before them have become longer or shorter. Raises ValueError where the numbers of words differ.
    """
    if len(source.words) != len(target.words):
        raise ValueError(
            f"{len(source.words)} words cannot be replaced by {len(target.words)} one by one, expected equal numbers: "
            "use refine."
        )
    M = torch.zeros(source.length, target.length, dtype=torch.float64)
    i = j = 0  # the next token of source and target
    for was, becomes in zip(source.words, target.words, strict=True):
        if was.name == becomes.name:
            continue
        M[list(source.places[i : was.tokens[0]]), list(target.places[j : becomes.tokens[0]])] = 1
        rows, columns = [source.places[k] for k in was.tokens], [target.places[k] for k in becomes.tokens]
        if len(rows) == len(columns):
            M[rows, columns] = 1
        else:
            for row in rows:
                M[row, columns] = 1 / len(columns)
        i, j = was.tokens[-1] + 1, becomes.tokens[-1] + 1
    before, start = _place(source, i), _place(target, j)
    padding = set(range(start)) - set(target.places)  # of chunks before the last swapped word's
    left_out = range(start + source.length - before, source.length)  # the last ones, where the words became shorter
    g = _take_own_places(M, padding | set(range(start, target.length)) - set(left_out))
    return TokenEdit(M, g)


def refine(source: PromptTokens, target: PromptTokens) -> TokenEdit:
    """Refine: tokens that both prompts have, in order, take the source's map; new ones keep their own.

    Padding takes the source's map at its own place.
    """
    M = torch.zeros(source.length, target.length, dtype=torch.float64)
    g = _take_own_places(M, set(range(target.length)) - set(target.places))
    for j, i in enumerate(align(source.ids, target.ids)):
        if i is None:
            g[target.places[j]] = 1
        else:
            M[source.places[i], target.places[j]] = 1
    return TokenEdit(M, g)


def align(source: Sequence[object], target: Sequence[object]) -> list[int | None]:
    """For every target token the source token it is, None for new ones: Needleman-Wunsch, gap 0, match 1, mismatch -1.

    A mismatch never pays, so this is the longest common subsequence. Where several are as long, the target's later
    tokens are the new ones, then the source's later tokens the dropped ones.
    """
    best = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, was in enumerate(source):
        for j, becomes in enumerate(target):
            best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], best[i][j] + (was == becomes))
    pairs: list[int | None] = [None] * len(target)
    i, j = len(source), len(target)
    while i and j:
        if best[i][j] == best[i][j - 1]:
            j -= 1
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs[j] = i
    return pairs


def stacked(edits: Sequence[TokenEdit]) -> TokenEdit:
    """Several edits of equal lengths as one, for a batch: M [E, L_s, L_t], g [E, L_t]."""
    return TokenEdit(torch.stack([edit.M for edit in edits]), torch.stack([edit.g for edit in edits]))


def _take_own_places(M: Tensor, places: Iterable[int]) -> Tensor:
    """Target tokens that take the source's map at their own place; g for those behind the source's end."""
    g = torch.zeros(M.shape[1], dtype=torch.float64)
    for place in places:
        if place < M.shape[0]:
            M[place, place] = 1
        else:
            g[place] = 1
    return g


def _place(prompt: PromptTokens, token: int) -> int:
    """Where in the context token number `token` is; behind the last one the end of the context."""
    return prompt.places[token] if token < len(prompt.places) else prompt.length


def cross_alpha(steps: int, window: Tensor) -> Tensor:
    """alpha[i] = 1 for the steps int(b0 (n + 1)) <= i < int(b1 (n + 1)), else 0: the cross attention that is edited.

    window [..., 2] holds b0, b1 in 0..1, once or for every token; returns [n + 1, ...] in float64. The authors count
    n + 1 steps here and n in `self_active`.
    """
    b0, b1 = (window.double() * (steps + 1)).trunc().unbind(-1)
    i = torch.arange(steps + 1, dtype=torch.float64).reshape(-1, *[1] * b0.ndim)
    return ((b0 <= i) & (i < b1)).double()


def self_active(steps: int, share: float) -> Tensor:
    """Whether the target's self attention is the source's in a step, i < int(n share); [n], boolean."""
    return torch.arange(steps) < int(steps * share)


def step_of(sigma: Tensor, sigmas: Tensor) -> Tensor:
    """The step that a model call at `sigma` belongs to, of the list [n + 1] that is sampled; both on one device.

    A call between two levels (a second-order solver's, a step that is divided) belongs to the step around it. The list
    falls, or rises (from picture to noise). Returns a 0-dim tensor: nothing waits for the device.
    """
    inner = sigmas[1:-1]
    if inner.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=sigma.device)
    tolerance = tolerances.AROUND_CALL * inner
    fallen, risen = inner + tolerance >= sigma, inner - tolerance <= sigma
    return torch.where(sigmas[0] >= sigmas[-1], fallen, risen).sum()
