"""Prompt-to-Prompt's mappers, schedules and edited attention, against the official numbers and explicit maps."""

from itertools import count

import pytest
import torch

from perflow_core.editing.prompt_tokens import PromptTokens, Word, parse_emphasis, parse_phrases
from perflow_core.editing.token_edit import (
    TokenEdit,
    align,
    cross_alpha,
    refine,
    replace,
    self_active,
    stacked,
    step_of,
)

CASES = ["replace", "replace, a word's own window", "refine", "reweight"]


@pytest.fixture(params=range(4), ids=CASES)
def case(golden, request):
    return golden("p2p")["cases"][request.param]


def prompts(case) -> list[PromptTokens]:
    """Through the reference's own tokenizer: words between single spaces, 5 letters a token."""
    ids: dict[str, int] = {}
    fresh = count(100)
    return [toy_prompt(text, case["max_len"], ids, fresh) for text in case["prompts"]]


def toy_prompt(text: str, length: int, ids: dict[str, int], fresh) -> PromptTokens:
    tokens, words = [1], []
    for word in text.split(" "):
        parts = [word[i : i + 5] for i in range(0, len(word), 5)]
        words.append(Word(word, tuple(range(len(tokens), len(tokens) + len(parts)))))
        for part in parts:
            if part not in ids:
                ids[part] = next(fresh)
            tokens.append(ids[part])
    tokens.append(2)
    return PromptTokens(tuple(tokens), tuple(range(len(tokens))), tuple(words), length)


def the_edit(case) -> TokenEdit:
    source, target = prompts(case)
    edit = replace(source, target) if case["kind"] == "replace" else refine(source, target)
    if case["kind"] == "reweight":
        factors = dict(enumerate(case["equalizer"][0]))
        edit = edit.emphasized({place: factor for place, factor in factors.items() if factor != 1})
    return edit


def windows(case) -> torch.Tensor:
    """b0, b1 for every token."""
    target, given = prompts(case)[1], case["cross_replace_steps"]
    default, others = (given["default_"], given) if isinstance(given, dict) else (given, {})
    found = torch.tensor([[0.0, default]] * case["max_len"], dtype=torch.float64)
    for word, window in others.items():
        if word != "default_":
            found[target.find([word])] = torch.tensor(window, dtype=torch.float64)
    return found


def test_tokens(case):
    assert [list(prompt.ids) for prompt in prompts(case)] == case["token_ids"]


def test_mapper(case):
    edit = the_edit(case)
    if case["kind"] == "replace":
        assert torch.allclose(edit.M, tensor(case["replace_mapper"][0]), rtol=0, atol=1e-9)
        assert not edit.g.any()
    if case["kind"] == "refine":
        kept = tensor(case["refine_alphas"][0])
        assert torch.equal(edit.g, 1 - kept)
        for place, mapped in enumerate(case["refine_mapper"][0]):
            wanted = torch.zeros(case["max_len"], dtype=torch.float64)
            if kept[place]:
                wanted[mapped] = 1
            assert torch.equal(edit.M[:, place], wanted)
    if case["kind"] == "reweight":
        assert torch.equal(edit.M, torch.diag(tensor(case["equalizer"][0])))


def test_schedules(case):
    alpha = cross_alpha(case["steps"], windows(case))
    assert torch.equal(alpha, tensor(case["alpha_time_words"])[:, 0])
    first, end = case["self_inject_step_range"]
    active = self_active(case["steps"], case["self_replace_steps"])
    assert active.nonzero().flatten().tolist() == list(range(first, end))


def test_edited_maps(case):
    """The values of an attention with V = identity are its map."""
    edit, alpha = the_edit(case), cross_alpha(case["steps"], windows(case))
    source, target = tensor(case["attn_logits"]).softmax(-1)
    eye = torch.eye(case["max_len"], dtype=torch.float64)

    def edited(alpha):
        of_source, of_target = edit.values(eye, alpha)
        return source @ of_source + target @ of_target

    whole = tensor(case["edited_full"])[0]
    assert torch.allclose(edited(torch.ones(())), whole, rtol=0, atol=1e-9)
    for step, wanted in enumerate(tensor(case["edited_per_step"])[:, 0]):
        assert torch.allclose(edited(alpha[step]), wanted, rtol=0, atol=1e-9)


def test_two_attentions_equal_explicit_maps(case):
    """(A_s M alpha + A_t (g alpha + 1 - alpha)) v, the paper's order of things, with any values."""
    edit = the_edit(case)
    source, target = tensor(case["attn_logits"]).softmax(-1)
    random = torch.Generator().manual_seed(0)
    v = torch.randn(2, case["max_len"], 5, dtype=torch.float64, generator=random)
    alpha = torch.rand(case["max_len"], dtype=torch.float64, generator=random)
    explicit = (source @ edit.M * alpha + target * (edit.g * alpha + 1 - alpha)) @ v
    of_source, of_target = edit.values(v, alpha)
    assert torch.allclose(source @ of_source + target @ of_target, explicit, rtol=0, atol=1e-13)


@pytest.mark.parametrize("target_times", [1, 3])
@pytest.mark.parametrize("source_times", [1, 2])
def test_contexts_repeated_to_one_length(case, source_times, target_times):
    """Keys that stand in the context several times share their attention; what comes out is the same."""
    edit = the_edit(case)
    source, target = tensor(case["attn_logits"])
    v = torch.randn(2, case["max_len"], 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    of_source, of_target = edit.values(v, torch.ones(()))
    once = source.softmax(-1) @ of_source + target.softmax(-1) @ of_target

    source, target = source.repeat(1, 1, source_times), target.repeat(1, 1, target_times)
    of_source, of_target = edit.repeated(source_times, target_times).values(
        v.repeat(1, target_times, 1), torch.ones(())
    )
    assert torch.allclose(source.softmax(-1) @ of_source + target.softmax(-1) @ of_target, once, rtol=0, atol=1e-12)


def test_equal_prompts_change_nothing(case):
    prompt = prompts(case)[0]
    for edit in (replace(prompt, prompt), refine(prompt, prompt)):
        assert torch.equal(edit.M, torch.eye(case["max_len"], dtype=torch.float64))
        assert not edit.g.any()


def test_several_edits_at_once(golden):
    cases = golden("p2p")["cases"][:2]
    edits = [the_edit(case) for case in cases]
    v = torch.randn(2, 20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for together, *alone in zip(
        stacked(edits).values(v, torch.ones(())),
        *(edit.values(v[i], torch.ones(())) for i, edit in enumerate(edits)),
        strict=True,
    ):
        assert torch.equal(together, torch.stack(alone))


def test_replace_of_unequal_word_counts():
    source, target = prompts({"prompts": ["a cat", "a big cat"], "max_len": 20})
    with pytest.raises(
        ValueError, match=r"^2 words cannot be replaced by 3 one by one, expected [^\n]+: use refine\.$"
    ):
        replace(source, target)


def test_replace_keeps_the_whole_attention():
    """Words that become longer share the source's; every target token behind them is looked up too."""
    source, target = prompts({"prompts": ["a lion eats", "a squirrel eats"], "max_len": 9})
    M = replace(source, target).M
    assert torch.equal(M[2], tensor([0, 0, 0.5, 0.5, 0, 0, 0, 0, 0]))
    assert torch.equal(M.sum(0)[4:], torch.ones(5, dtype=torch.float64))


def chunks(words: int, length: int = 8) -> PromptTokens:
    """A long prompt: start, at most 6 tokens and end in every chunk; one token a word, numbered."""
    places = [0] + [1 + word + 2 * (word // (length - 2)) for word in range(words)]
    places.append(places[-1] + 1)
    named = tuple(Word(word, (word + 1,)) for word in range(words))
    used = length * -(-words // (length - 2))
    return PromptTokens(("start", *range(words), "end"), tuple(places), named, used)


@pytest.mark.parametrize("kind", [replace, refine])
def test_a_longer_prompts_second_chunk(kind):
    """A source of one chunk, an edit of two: every target token is looked up once, from itself or the source."""
    if kind is replace:
        source = chunks(9)
        target = source._replace(words=(Word("new", (1,)), *source.words[1:]))
    else:
        source, target = chunks(4), chunks(9)
    edit = kind(source, target)
    assert edit.M.shape == (source.length, target.length)
    assert torch.equal(edit.M.sum(0) + edit.g, torch.ones(target.length, dtype=torch.float64))
    shared = [place for word in source.words[1:] for place in [source.places[word.tokens[0]]]]
    assert all(edit.M[place, place] == 1 for place in shared)


def test_find():
    prompt = prompts({"prompts": ["a big squirrel and a big cat"], "max_len": 20})[0]
    assert prompt.find(["squirrel"]) == [3, 4]
    assert prompt.find(["a", "big"]) == [1, 2, 6, 7]
    assert prompt.find(["big", "dog"]) == prompt.find([]) == []


def test_align_prefers_what_the_authors_do():
    """Of two equal words the first is the one that was there."""
    assert align("ab", "aab") == [0, None, 1]
    assert align("aab", "ab") == [0, 2]
    assert align("", "ab") == [None, None]


def test_step_of():
    falling = torch.tensor([14.6, 4.1, 1.6, 0.7, 0.0])
    assert [int(step_of(sigma, falling)) for sigma in falling[:-1]] == [0, 1, 2, 3]
    assert int(step_of(torch.tensor(6.0), falling)) == 0  # a second look inside the first step
    assert int(step_of(falling[1] * (1 - 1e-6), falling)) == int(step_of(falling[1] * (1 + 1e-6), falling)) == 1
    rising = falling.flip(0)
    assert [int(step_of(sigma, rising)) for sigma in rising[:-1]] == [0, 1, 2, 3]
    assert int(step_of(torch.tensor(3.0), torch.tensor([3.0, 0.0]))) == 0


def test_parsing():
    assert parse_phrases("cat,  red hat\n dog ,") == ["cat", "red hat", "dog"]
    assert parse_emphasis("snowy 2, red hat 0.5,dark -.5") == [("snowy", 2), ("red hat", 0.5), ("dark", -0.5)]
    assert parse_emphasis("") == []


@pytest.mark.parametrize("text", ["snowy", "2", "snowy two", "snowy 2 red", "snowy:2", "snowy nan", "snowy 1e4"])
def test_emphasis_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=rf'^emphasis has "{text}", expected [^\n]+: [^\n]+\.$'):
        parse_emphasis(text)


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
