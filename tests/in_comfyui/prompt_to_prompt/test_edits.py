"""Edited pictures in a real ComfyUI: the official maps, LocalBlend, steps, and batches however they are split."""

import pytest
import torch
from trial.edited_prompts import KEY, LATENT, SOURCE, unedited

FAMILIES = ["SD1.5", "SD2.x", "SDXL"]


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_equal_explicit_maps(p2p, sample, models, with_maps, family):
    """In float64, where only the order of operations differs; 1e-6 is the latents' float32."""
    from analytic_model import relative_error

    base = models(family, torch.float64)
    model, positive, latent = p2p(family=family, model=base, emphasis="castle 2, wooden 3")
    found = sample(model, positive, latent, 3.0, family)
    wanted = sample(*with_maps(base, positive), latent, 3.0, family)
    plain = sample(base, unedited(positive), latent, 3.0, family)
    for row in range(3):
        assert relative_error(found[row], wanted[row]) < 1e-6
    for row in (1, 2):
        assert relative_error(found[row], plain[row]) > 1e-4


@pytest.mark.parametrize(
    ("levels", "size", "coarse"),
    [
        ({0, 1, 2}, (64, 64), 2),  # SD1.5, 512 pixels
        ({0, 1, 2}, (96, 64), 2),
        ({1, 2}, (128, 128), 2),  # SDXL, 1024 pixels
        ({0, 1, 2}, (32, 32), 1),
        ({0, 1, 2}, (16, 16), 0),
        ({1, 2}, (16, 16), 1),
        ({0}, (64, 64), 0),
    ],
)
def test_where_self_attention_is_edited_and_words_are_located(comfyui, levels, size, coarse):
    """Where maps have 16 x 16 pixels, as officially at 512, and no later than at a quarter of the latent's side."""
    assert comfyui.module("nodes.comfyui.editing.edited_attention").coarse_level(levels, size) == coarse


def test_the_layers_of_a_large_latent(p2p, sample, monkeypatch, comfyui):
    """At 512 pixels: self attention at a quarter of the side and below, words at a quarter, edits in every layer."""
    editing = comfyui.module("nodes.comfyui.editing.attention_editing")
    seen = []

    def edited_blocks(*args):
        seen.append(original(*args))
        return seen[-1]

    original = editing.edited_blocks
    monkeypatch.setattr(editing, "edited_blocks", edited_blocks)
    large = {"samples": torch.zeros(1, 4, 64, 64)}
    model, positive, latent = p2p(latent=large, edited="a castle", blend="castle", self_steps=1.0)
    sample(model, positive, latent, steps=1)
    (layers,) = seen
    coarse = {("input", 5), ("middle", 0), ("output", 0), ("output", 1)}
    assert {key[:2] for key in layers["attn1"]} == coarse
    assert {key[:2] for key in layers["attn2"]} == coarse | {("input", 3), ("output", 2), ("output", 3)}
    located = {key[:2] for key, layer in layers["attn2"].items() if layer.keywords["level"] is not None}
    assert located == coarse - {("middle", 0)}


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_edit_the_second_row_is_the_first(p2p, sample, family, cfg):
    """To rounding: on some processors that depends on the row."""
    from analytic_model import relative_error

    model, positive, latent = p2p(edited=SOURCE, family=family)
    source, edit = sample(model, positive, latent, cfg, family)
    assert relative_error(edit, source) < 5e-6


def test_the_source_is_what_it_is_alone(p2p, sample):
    model, positive, latent = p2p()
    edited, plain = sample(model, positive, latent, 3.0), sample(model, unedited(positive), latent, 3.0)
    assert torch.equal(edited[0], plain[0])
    assert not torch.allclose(edited[1:], plain[1:])


def test_shares_of_nothing_change_nothing(p2p, sample):
    model, positive, latent = p2p(cross_steps=0.0, self_steps=0.0)
    assert torch.equal(sample(model, positive, latent), sample(model, unedited(positive), latent))


@pytest.mark.parametrize("blend", ["", "castle, lighthouse"])
def test_prompts_in_one_call_or_several(p2p, sample, little_memory, blend):
    """CFG above 1: positive and negative, together and one after the other."""
    from analytic_model import relative_error

    model, positive, latent = p2p(blend=blend)
    together = sample(model, positive, latent, 3.0)
    with little_memory():
        apart = sample(model, positive, latent, 3.0)
    assert relative_error(apart, together) < 5e-6


def test_two_edits_in_one_call_or_several(p2p, sample, run, little_memory):
    """CFG 1: two nodes' prompts, each with its own edit, are averaged (Conditioning Combine)."""
    from analytic_model import relative_error

    model, first, latent = p2p()
    _, second, _ = p2p(source="a red house", edited="a blue house\na red tree", self_steps=0.5)
    both = run("ConditioningCombine", conditioning_1=first, conditioning_2=second)[0]
    together = sample(model, both, latent)
    with little_memory():
        assert relative_error(sample(model, both, latent), together) < 5e-6
    for positive in (first, second):
        assert relative_error(sample(model, positive, latent)[1:], together[1:]) > 1e-3


def test_a_negative_of_another_length(p2p, sample, little_memory):
    """ComfyUI repeats the shorter prompt to the longer one's length when it samples both at once."""
    from analytic_model import relative_error

    model, positive, latent = p2p()
    long = " ".join(["blue"] * 100)
    found = sample(model, positive, latent, 3.0, negative=long)
    with little_memory():
        assert relative_error(found, sample(model, positive, latent, 3.0, negative=long)) < 5e-6


READ = {
    "a longer edit": (SOURCE, SOURCE + ", very" * 60, (2, 154, 768)),
    "a longer source": (SOURCE + ", very" * 60, SOURCE, (2, 154, 768)),
    "weights": ("a (lighthouse:1.3), at sunset", "a (castle:0.8), at (sunset:1.2)", (2, 77, 768)),
}


@pytest.mark.parametrize("name", READ)
def test_prompts_as_comfyui_reads_them(p2p, sample, models, with_maps, name):
    """More than one part of 77 tokens, and weights of words."""
    from analytic_model import relative_error

    source, edited, shape = READ[name]
    base = models("SD1.5", torch.float64)
    model, positive, latent = p2p(source, edited, model=base)
    assert positive[0][0].shape == shape
    found, wanted = sample(model, positive, latent, 3.0), sample(*with_maps(base, positive), latent, 3.0)
    assert relative_error(found, wanted) < 1e-6


@pytest.mark.parametrize("prompt", [SOURCE + ", very" * 60, "a (lighthouse:1.3), at sunset"])
def test_such_prompts_without_an_edit(p2p, sample, prompt):
    from analytic_model import relative_error

    model, positive, latent = p2p(prompt, prompt)
    source, edit = sample(model, positive, latent, 3.0)
    assert relative_error(edit, source) < 5e-6


def test_weights_are_no_words(p2p):
    """They change what the text means, and nothing of which word takes which one's place."""
    _, plain, _ = p2p(edited="a castle, at sunset")
    _, weighted, _ = p2p(edited="a (castle:1.3), at sunset")
    assert all(torch.equal(*both) for both in zip(plain[0][1][KEY].edits, weighted[0][1][KEY].edits, strict=True))
    assert not torch.equal(plain[0][0], weighted[0][0])


def test_a_mark_behind_a_swapped_word_is_no_part_of_it(p2p, clips):
    """The official code takes "lighthouse," for one word, whose map and the mark's all new tokens share."""
    source, edited = "a lighthouse, at sunset", "a glockenspiel, at night"
    M = p2p(source, edited)[1][0][1][KEY].edits.M[0]
    tokens = [[token for token, _ in clips("SD1.5").tokenize(text)["l"][0]] for text in (source, edited)]
    comma = clips("SD1.5").tokenize(",")["l"][0][1][0]
    was, becomes = (found.index(comma) for found in tokens)
    assert becomes > was == 3  # the new word has more tokens
    assert M[:, becomes].nonzero().flatten().tolist() == [was]
    for token in range(2, becomes):
        assert M[:, token].nonzero().flatten().tolist() == [2]


def test_latent_of_several_pictures(p2p, sample):
    """Each becomes a source and its edits with one noise."""
    from analytic_model import relative_error

    latent = {"samples": torch.zeros(2, 4, 16, 16), "noise_mask": torch.rand(2, 1, 128, 128), "batch_index": [4, 2]}
    model, positive, batch = p2p(latent=latent)
    assert batch["samples"].shape[0] == 6
    assert batch["batch_index"] == [4, 4, 4, 2, 2, 2]
    assert torch.equal(batch["noise_mask"][0], batch["noise_mask"][2])
    assert torch.equal(batch["noise_mask"][5], latent["noise_mask"][1])
    model, positive, two = p2p(latent={"samples": torch.zeros(2, 4, 16, 16)})
    both = sample(model, positive, two)
    model, positive, one = p2p()
    assert relative_error(both[:3], sample(model, positive, one)) < 5e-6
    assert relative_error(both[3], both[0]) > 0.1


def test_blend_keeps_the_rest_of_the_source(p2p, sample):
    model, positive, latent = p2p(edited="a castle, at night", blend="castle, lighthouse", blend_threshold=0.95)
    source, edit = sample(model, positive, latent, 3.0)
    kept = (source == edit).all(0)
    assert kept.any()
    assert not kept.all()
    model, positive, _ = p2p(edited="a castle, at night")
    assert torch.equal(sample(model, positive, latent, 3.0)[0], source)


def test_blend_ends(p2p, sample):
    """Above every attention nothing changes, above none everything may."""
    edit = {"edited": "a castle, at night", "blend": "castle"}
    model, positive, latent = p2p(**edit, blend_threshold=1.0)
    assert torch.equal(*sample(model, positive, latent))
    model, positive, latent = p2p(**edit, blend_threshold=0.0)
    found = sample(model, positive, latent)
    model, positive, latent = p2p(edited="a castle, at night")
    assert torch.equal(found, sample(model, positive, latent))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpm_2"])
def test_the_step_is_the_one_the_sigma_lies_in(p2p, sample, monkeypatch, comfyui, sampler):
    """Whatever calls a sampler makes in a step."""
    editing = comfyui.module("nodes.comfyui.editing.attention_editing")
    seen = []

    def step_of(sigma, sigmas):
        seen.append(int(original(sigma, sigmas)))
        return original(sigma, sigmas)

    original = editing.step_of
    monkeypatch.setattr(editing, "step_of", step_of)
    model, positive, latent = p2p()
    sample(model, positive, latent, sampler_name=sampler)
    wanted = {"heun": [0, 1, 1, 2, 2, 3, 3], "dpm_2": [0, 0, 1, 1, 2, 2, 3]}
    assert seen == wanted.get(sampler, [0, 1, 2, 3])


def test_the_model_alone_is_what_it_was(p2p, sample, models, encode):
    base = models("SD1.5")
    model, _, _ = p2p(model=base)
    assert torch.equal(sample(model, encode(SOURCE), LATENT), sample(base, encode(SOURCE), LATENT))
    assert KEY not in str(base.wrappers)


def test_nothing_waits_for_the_device(p2p, sample):
    """Values are read once a run, not once a step: the same for 3 steps as for 6."""
    from host_reads import HostReads

    model, positive, latent = p2p(blend="castle")
    plain = unedited(positive)

    def reads(prompts, steps):
        with HostReads() as counter:
            sample(model, prompts, latent, steps=steps)
        return sum(counter.counts.values())

    assert reads(positive, 6) - reads(positive, 3) == reads(plain, 6) - reads(plain, 3)
