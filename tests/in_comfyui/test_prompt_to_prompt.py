"""Prompt-to-Prompt in a real ComfyUI: the authors' maps, other nodes on the same model, and batches in any order."""

import pytest
import torch

FAMILIES = ["SD1.5", "SD2.x", "SDXL"]
SOURCE = "a lighthouse, at sunset"
EDITED = "a castle, at sunset\na small wooden lighthouse, at the sunset"
DEFAULTS = {"edit": "auto", "cross_steps": 0.8, "self_steps": 0.4, "emphasis": "", "blend": "", "blend_threshold": 0.3}
LATENT = {"samples": torch.zeros(1, 4, 16, 16)}
KEY = "prompt_to_prompt"


@pytest.fixture(scope="module")
def clips(comfyui):
    """(family) -> CLIP, made once."""
    import small_families

    made = {}
    return lambda family: made[family] if family in made else made.setdefault(family, small_families.clip(family))


@pytest.fixture
def models(comfyui):
    import small_families

    return small_families.unet


@pytest.fixture
def p2p(run, clips, models):
    """The node -> MODEL, positive, LATENT."""

    def call(source=SOURCE, edited=EDITED, family="SD1.5", model=None, latent=LATENT, **inputs):
        model = model if model is not None else models(family)
        given = DEFAULTS | inputs
        return run(
            "PeRFlowPromptToPrompt",
            model=model,
            clip=clips(family),
            latent=latent,
            source=source,
            edited=edited,
            **given,
        )

    return call


@pytest.fixture
def encode(run, clips):
    return lambda text, family="SD1.5": run("CLIPTextEncode", clip=clips(family), text=text)[0]


@pytest.fixture
def sample(run, encode):
    """The KSampler node, 4 steps; returns the samples."""

    def call(model, positive, latent, cfg=1.0, family="SD1.5", negative="blue", **inputs):
        given = {"seed": 0, "steps": 4, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0} | inputs
        prompts = {"positive": positive, "negative": encode(negative, family)}
        return run("KSampler", model=model, latent_image=latent, cfg=cfg, **prompts, **given)[0]["samples"]

    return call


def unedited(positive):
    """The same prompts without the edit that rides on them."""
    return [[cond, {key: value for key, value in options.items() if key != KEY}] for cond, options in positive]


# The small models' blocks where the latent was halved twice.
COARSE = {("input", 5), ("middle", 0), ("output", 0), ("output", 1)}


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_equal_explicit_maps(p2p, sample, models, family):
    """In float64, where only the order of operations differs; 1e-6 is the latents' float32."""
    from analytic_model import relative_error
    from explicit_maps import with_explicit_maps

    base = models(family, torch.float64)
    model, positive, latent = p2p(family=family, model=base, emphasis="castle 2, wooden 3")
    plan = positive[0][1][KEY]
    theirs = with_explicit_maps(base, *plan.edits, cross=range(0, 4), own=range(0, 1), coarse=COARSE)
    found = sample(model, positive, latent, 3.0, family)
    wanted = sample(theirs, unedited(positive), latent, 3.0, family)
    plain = sample(base, unedited(positive), latent, 3.0, family)
    for row in range(3):
        assert relative_error(found[row], wanted[row]) < 1e-6
    for row in (1, 2):
        assert relative_error(found[row], plain[row]) > 1e-4


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_edit_the_second_row_is_the_first(p2p, sample, family, cfg):
    model, positive, latent = p2p(edited=SOURCE, family=family)
    source, edit = sample(model, positive, latent, cfg, family)
    assert torch.equal(source, edit)


def test_the_source_is_what_it_is_alone(p2p, sample):
    model, positive, latent = p2p()
    edited, plain = sample(model, positive, latent, 3.0), sample(model, unedited(positive), latent, 3.0)
    assert torch.equal(edited[0], plain[0])
    assert not torch.allclose(edited[1:], plain[1:])


def test_shares_of_nothing_change_nothing(p2p, sample):
    model, positive, latent = p2p(cross_steps=0.0, self_steps=0.0)
    assert torch.equal(sample(model, positive, latent), sample(model, unedited(positive), latent))


@pytest.mark.parametrize("blend", ["", "castle, lighthouse"])
def test_prompts_in_one_call_or_several(p2p, sample, monkeypatch, blend):
    """With little memory ComfyUI runs positive and negative one after the other."""
    import comfy.model_base
    from analytic_model import relative_error

    model, positive, latent = p2p(blend=blend)
    together = sample(model, positive, latent, 3.0)
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: float("inf"))
    apart = sample(model, positive, latent, 3.0)
    assert relative_error(apart, together) < 5e-6


def test_the_positive_found_in_any_guider(p2p, encode, run):
    """DualCFGGuider counts the negative first; with one prompt for both it is CFGGuider."""
    from analytic_model import relative_error

    model, positive, latent = p2p()
    negative = encode("blue")
    common = {
        "noise": run("RandomNoise", noise_seed=0)[0],
        "sampler": run("KSamplerSelect", sampler_name="euler")[0],
        "sigmas": run("BasicScheduler", model=model, scheduler="simple", steps=4, denoise=1.0)[0],
        "latent_image": latent,
    }
    plain = run("CFGGuider", model=model, positive=positive, negative=negative, cfg=3.0)[0]
    dual = run(
        "DualCFGGuider",
        **{"model": model, "cond1": positive, "cond2": negative, "negative": negative},
        **{"cfg_conds": 3.0, "cfg_cond2_negative": 1.0, "style": "regular"},
    )[0]
    wanted = run("SamplerCustomAdvanced", guider=plain, **common)[0]["samples"]
    found = run("SamplerCustomAdvanced", guider=dual, **common)[0]["samples"]
    assert relative_error(found, wanted) < 5e-6


def test_a_negative_of_another_length(p2p, sample):
    """ComfyUI repeats the shorter prompt to the longer one's length when it samples both at once."""
    from analytic_model import relative_error

    model, positive, latent = p2p()
    long = " ".join(["blue"] * 100)
    alone = [[cond, options | {"start_percent": 0.0}] for cond, options in positive]
    found = sample(model, positive, latent, 3.0, negative=long)
    with pytest.MonkeyPatch.context() as patch:
        import comfy.model_base

        patch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: float("inf"))
        wanted = sample(model, alone, latent, 3.0, negative=long)
    assert relative_error(found, wanted) < 5e-6


class Adds:
    """What IP-Adapter does to cross attention: its own attention, added."""

    def __init__(self, patched):
        self.patched = patched

    def __call__(self, q, k, v, extra):
        from comfy.ldm.modules.attention import optimized_attention

        out = optimized_attention(q, k, v, extra["n_heads"]) if self.patched is None else self.patched(q, k, v, extra)
        return out + 0.3 * torch.sin(q)


@pytest.mark.parametrize("order", ["before", "after"])
def test_attention_that_another_node_replaced(p2p, sample, models, order):
    """It stays, and adds to every row what its own query asks for."""
    from analytic_model import relative_error
    from explicit_maps import with_explicit_maps

    def adapter(model, around=None):
        adapted = model.clone()
        for place, numbers in (("input", (3, 5)), ("middle", (0,)), ("output", range(4))):
            for number in numbers:
                layers = adapted.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
                adapted.set_model_attn2_replace(Adds(layers.get((place, number))), place, number)
        return adapted

    base = models("SD1.5", torch.float64)
    model, positive, latent = p2p(model=adapter(base) if order == "before" else base)
    model = model if order == "before" else adapter(model)
    plan = positive[0][1][KEY]
    theirs = adapter(with_explicit_maps(base, *plan.edits, cross=range(0, 4), own=range(0, 1), coarse=COARSE))
    found, wanted = sample(model, positive, latent, 3.0), sample(theirs, unedited(positive), latent, 3.0)
    assert relative_error(found, wanted) < 1e-6


def test_long_prompts(p2p, sample, models):
    """A source of one part of 77 tokens and an edit of two."""
    from analytic_model import relative_error
    from explicit_maps import with_explicit_maps

    base = models("SD1.5", torch.float64)
    filled = SOURCE + ", very" * 60
    model, positive, latent = p2p(edited=filled, model=base)
    assert positive[0][0].shape == (2, 154, 768)
    plan = positive[0][1][KEY]
    theirs = with_explicit_maps(base, *plan.edits, cross=range(0, 4), own=range(0, 1), coarse=COARSE)
    found, wanted = sample(model, positive, latent, 3.0), sample(theirs, unedited(positive), latent, 3.0)
    assert relative_error(found, wanted) < 1e-6


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
    editing = comfyui.module("nodes.attention_editing")
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


def test_a_perflow_model(p2p, run, sample, models):
    """Its window grid, by a plain KSampler; the picture is another than the base's."""
    sampling = {"prediction_type": "diff_eps", "windows": 4, "align_steps": True}
    accelerated = run("PeRFlowModelSampling", model=models("SD1.5"), **sampling)[0]
    model, positive, latent = p2p(model=accelerated, edited=SOURCE)
    found = sample(model, positive, latent, 3.0, scheduler="karras")
    assert torch.equal(*found)
    assert found.isfinite().all()
    assert torch.equal(found, sample(accelerated, unedited(positive), latent, 3.0, scheduler="karras"))


def test_the_model_alone_is_what_it_was(p2p, sample, models, encode):
    base = models("SD1.5")
    model, _, _ = p2p(model=base)
    assert torch.equal(sample(model, encode(SOURCE), LATENT), sample(base, encode(SOURCE), LATENT))
    assert KEY not in str(base.wrappers)


def test_nothing_waits_for_the_device(p2p, sample):
    """Values are read once a run, not once a step: the same for 3 steps as for 6."""
    from test_no_waiting import HostReads

    model, positive, latent = p2p(blend="castle")
    plain = unedited(positive)

    def reads(prompts, steps):
        with HostReads() as counter:
            sample(model, prompts, latent, steps=steps)
        return sum(counter.counts.values())

    assert reads(positive, 6) - reads(positive, 3) == reads(plain, 6) - reads(plain, 3)


SAID = {
    "replace": ({"edited": "a castle, at sunset"}, ["1. replace lighthouse to castle"]),
    "refine": ({"edited": "a tall red lighthouse, at sunset"}, ["1. refine, new: tall red"]),
    "left out": ({"edited": "a lighthouse"}, ["1. refine, words left out"]),
    "equal": ({"edited": SOURCE}, ["1. the same prompt: repeats the source"]),
    "no edit": ({"edited": "  \n"}, ["1. the same prompt: repeats the source"]),
    "weights": ({"edited": "a (lighthouse:1.4), at sunset"}, ["1. the same words with other weights"]),
    "reweight": ({"edited": "", "emphasis": "sunset 2"}, ["1. the same prompt; sunset times 2"]),
    "no such word": (
        {"edited": "a castle, at sunset", "emphasis": "snowy 2", "blend": "moon, castle"},
        [
            "1. replace lighthouse to castle",
            'emphasis: "snowy" is in no edited prompt, so it has no effect.',
            'blend: "moon" is in no prompt, so it has no effect.',
        ],
    ),
    "no word to blend": (
        {"edited": SOURCE, "blend": "moon"},
        [
            "1. the same prompt: repeats the source",
            'blend: "moon" is in no prompt, so it has no effect.',
            "The whole picture may change.",
        ],
    ),
    "empty source": (
        {"source": "", "edited": "a castle"},
        ["1. refine, new: a castle", "The source is empty: the edits share only its layout."],
    ),
    "unequal": (
        {"edited": "a castle", "edit": "replace"},
        ["1. refine, new: castle (replace needs equal numbers of words, here 5 and 2)"],
    ),
    "long": (
        {"edited": SOURCE + " very" * 80},
        [
            f"1. refine, new: {' '.join(['very'] * 80)}",
            "Prompts take up to 154 tokens, in parts of 77, as in CLIP Text Encode.",
        ],
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_the_node_says(comfyui, clips, models, name):
    inputs, lines = SAID[name]
    given = {"model": models("SD1.5"), "clip": clips("SD1.5"), "latent": LATENT, "source": SOURCE} | DEFAULTS | inputs
    said = comfyui.nodes["PeRFlowPromptToPrompt"].execute(**given).ui["text"]
    assert said == ["\n".join(lines)]


def test_a_batch_that_does_not_fit(p2p, sample, run):
    model, positive, _ = p2p()
    with pytest.raises(
        ValueError, match=r"^Prompt-to-Prompt has a source and 2 edits and the latent 1 pictures, expec"
    ):
        sample(model, positive, LATENT)


def test_prompts_joined_on_the_way(p2p, sample, run):
    model, positive, latent = p2p()
    joined = run("ConditioningConcat", conditioning_to=positive, conditioning_from=positive)[0]
    sentence = r"^The positive of Prompt-to-Prompt reached the sampler with 3 prompts of 154 tokens, expected 3 of 77: "
    with pytest.raises(ValueError, match=sentence):
        sample(model, joined, latent)


def test_a_model_without_the_unet(p2p, golden):
    from family_models import sd3_model

    with pytest.raises(
        ValueError, match=r"^Prompt-to-Prompt got a model without Stable Diffusion's UNet \(AnalyticSD3\), "
    ):
        p2p(model=sd3_model(golden("pcm_sd3")))


@pytest.mark.parametrize(("name", "value"), [("edit", "swap"), ("cross_steps", 1.5), ("self_steps", float("nan"))])
def test_values_through_links(p2p, name, value):
    with pytest.raises(
        ValueError, match=rf"^{name} is {value}, expected [^\n]+: change what is connected to {name}\.$"
    ):
        p2p(**{name: value})


def test_no_clip(run, models):
    with pytest.raises(ValueError, match=r"^Prompt-to-Prompt got no clip, expected a text model: [^\n]+\.$"):
        run(
            "PeRFlowPromptToPrompt",
            **{"model": models("SD1.5"), "clip": None, "latent": LATENT, "source": "", "edited": ""},
            **DEFAULTS,
        )


def test_embeddings(comfyui, run, models, tmp_path):
    """A textual inversion counts as one new word."""
    import safetensors.torch
    import small_families

    safetensors.torch.save_file({"emb_params": torch.randn(3, 768)}, tmp_path / "style.safetensors")
    clip = small_families.clip("SD1.5", tmp_path)
    given = {"source": SOURCE, "edited": SOURCE + " embedding:style"} | DEFAULTS
    node = comfyui.nodes["PeRFlowPromptToPrompt"]
    said = node.execute(model=models("SD1.5"), clip=clip, latent=LATENT, **given).ui["text"]
    assert said == ["1. refine, new: embedding embedding embedding"]
