"""What Prompt-to-Prompt says on the node, and what it refuses in one sentence."""

import pytest
import torch
from trial.edited_prompts import DEFAULTS, LATENT, SOURCE

SAID = {
    "replace": ({"edited": "a castle, at sunset"}, ["Edit 1: replace lighthouse to castle"]),
    "refine": ({"edited": "a tall red lighthouse, at sunset"}, ["Edit 1: refine, new: tall red"]),
    "left out": ({"edited": "a lighthouse"}, ["Edit 1: refine, words left out"]),
    "equal": ({"edited": SOURCE}, ["Edit 1: the same prompt, so it repeats the source"]),
    "no edit": ({"edited": "  \n"}, ["Edit 1: the same prompt, so it repeats the source"]),
    "weights": ({"edited": "a (lighthouse:1.4), at sunset"}, ["Edit 1: the same words with other weights"]),
    "reweight": ({"edited": "", "emphasis": "sunset 2"}, ["Edit 1: the same prompt; sunset times 2"]),
    "no such word": (
        {"edited": "a castle, at sunset", "emphasis": "snowy 2", "blend": "moon, castle"},
        [
            "Edit 1: replace lighthouse to castle",
            'emphasis: "snowy" is in no edited prompt, so it has no effect.',
            'blend: "moon" is in no prompt, so it has no effect.',
        ],
    ),
    "no word to blend": (
        {"edited": SOURCE, "blend": "moon"},
        [
            "Edit 1: the same prompt, so it repeats the source",
            'blend: "moon" is in no prompt, so it has no effect.',
            "The whole picture may change.",
        ],
    ),
    "empty source": (
        {"source": "", "edited": "a castle"},
        ["Edit 1: refine, new: a castle", "The source is empty: the edits share only its layout."],
    ),
    "unequal": (
        {"edited": "a castle", "edit": "replace"},
        ["Edit 1: refine, new: castle (replace needs equal numbers of words, here 5 and 2)"],
    ),
    "long": (
        {"edited": SOURCE + " very" * 80},
        [
            f"Edit 1: refine, new: {' '.join(['very'] * 80)}",
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
    from trial import small_text_models

    safetensors.torch.save_file({"emb_params": torch.randn(3, 768)}, tmp_path / "style.safetensors")
    clip = small_text_models.clip("SD1.5", tmp_path)
    given = {"source": SOURCE, "edited": SOURCE + " embedding:style"} | DEFAULTS
    node = comfyui.nodes["PeRFlowPromptToPrompt"]
    said = node.execute(model=models("SD1.5"), clip=clip, latent=LATENT, **given).ui["text"]
    assert said == ["Edit 1: refine, new: embedding embedding embedding"]
