"""Prompt-to-Prompt on narrow models of the real layouts: the node, and a plain KSampler behind it."""

from contextlib import contextmanager
from functools import cache

import pytest
from trial.edited_prompts import DEFAULTS, EDITED, KEY, LATENT, SOURCE, unedited


@pytest.fixture(scope="session")
def clips(comfyui):
    """(family) -> CLIP, made once; it reads each text once."""
    from trial import small_text_models

    @cache
    def made(family):
        clip = small_text_models.clip(family)
        # Of this CLIP alone: clones, which nodes give other layers, hooks and weights, read anew.
        clip.encode_from_tokens = remembered(clip.encode_from_tokens)
        return clip

    return made


def remembered(encode):
    """Most tests read the same few texts, which takes as long as some steps of the narrow models."""
    known = {}

    def call(tokens, **how):
        key = repr((tokens, how))
        if key not in known:
            known[key] = encode(tokens, **how)
        return dict(known[key])  # whose caller takes things out

    return call


@pytest.fixture
def models(comfyui):
    import narrow_unets

    return narrow_unets.unet


@pytest.fixture
def p2p(run, clips, models):
    """The node -> MODEL, positive, LATENT."""

    def call(source=SOURCE, edited=EDITED, family="SD1.5", model=None, clip=None, latent=LATENT, **inputs):
        given = dict(model=model or models(family), clip=clip or clips(family), latent=latent)
        return run("PeRFlowPromptToPrompt", source=source, edited=edited, **given, **(DEFAULTS | inputs))

    return call


@pytest.fixture
def encode(run, clips):
    return lambda text, family="SD1.5": run("CLIPTextEncode", clip=clips(family), text=text)[0]


@pytest.fixture
def sample(run, encode):
    """The KSampler node, 4 steps; returns the samples."""

    def call(model, positive, latent, cfg=1.0, family="SD1.5", negative="blue", **inputs):
        given = {"seed": 0, "steps": 4, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0} | inputs
        negative = encode(negative, family) if isinstance(negative, str) else negative
        prompts = {"positive": positive, "negative": negative}
        return run("KSampler", model=model, latent_image=latent, cfg=cfg, **prompts, **given)[0]["samples"]

    return call


@pytest.fixture
def with_maps(comfyui):
    """(MODEL, positive of the node) -> one that does the same edit of 4 steps by explicit maps, and its positive."""
    from explicit_maps import with_explicit_maps

    def call(model, positive):
        plan = positive[0][1][KEY]
        made = with_explicit_maps(model, *plan.edits, cross=range(0, 4), own=range(0, 1))
        return made, unedited(positive)

    return call


@pytest.fixture
def little_memory(comfyui):
    """Inside it ComfyUI runs prompts one after the other."""
    import comfy.model_base

    @contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: float("inf"))
            yield

    return patched
