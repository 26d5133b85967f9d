"""What the gallery shows: each function is one sheet of pictures with the words above it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from demo_graph import PROMPTS
from sampled_sheet import Sheet
from trial.picture_graph import CFG, MANY, Link, PictureGraph

LIGHTHOUSE, HOUSE, CASTLE, BALLOON = PROMPTS
RANKS = (128, 64, 16)
DRAWN = "house.png"  # in the server's input folder: a red house on a hill at noon


class Prepared(NamedTuple):
    """Names of what was made before: a LoRA, and low-rank deltas by rank."""

    lora: str
    low_rank: dict[int, str]


def steps(g: PictureGraph, made: Prepared) -> Sheet:
    counts = (2, 4, 6, 8, 16)
    rows = {
        text: [g.many(text), *(g.sampled(g.perflow(), text, count) for count in counts)]
        for text in (LIGHTHOUSE, CASTLE)
    }
    return Sheet(
        "Steps",
        "The base model with 25 steps, and PeRFlow from the same noise with 2 to 16. Two steps are fewer than the four "
        "windows, so they skip some of them.",
        [f"base, {MANY} steps", *(f"PeRFlow, {count} steps" for count in counts)],
        rows,
    )


def strength(g: PictureGraph, made: Prepared) -> Sheet:
    values = (0.0, 0.25, 0.5, 0.75, 1.0, 1.2)
    rows = {
        text: [g.many(text), *(g.sampled(g.perflow(value), text) for value in values)] for text in (LIGHTHOUSE, BALLOON)
    }
    return Sheet(
        "Strength of the delta",
        f"Four steps each, all with CFG {CFG:g}. Strength 0 is the base model on PeRFlow's steps; 1 is what was "
        "trained.",
        [f"base, {MANY} steps", *(f"strength {value:g}" for value in values)],
        rows,
    )


def guidance(g: PictureGraph, made: Prepared) -> Sheet:
    values = (1.0, 2.0, 3.0, 5.0, 7.5)
    rows = {
        f"PeRFlow, 4 steps: {HOUSE}": [g.sampled(g.perflow(), HOUSE, cfg=value) for value in values],
        f"base, {MANY} steps: {HOUSE}": [g.many(HOUSE, value) for value in values],
    }
    return Sheet(
        "Guidance",
        "This delta was trained with `cfg_sync`, so CFG does what it does on the base model. CFG 1 takes half the "
        "time and guides neither.",
        [f"CFG {value:g}" for value in values],
        rows,
        to=None,
    )


def negative_prompt(g: PictureGraph, made: Prepared) -> Sheet:
    words = ("", "rainy", "snowy", "clear", "night")
    texts = ("a blue house on a hill", "a red windmill in a field")
    rows = {
        f"{name}: {text}": [sampled(text, negative=avoided) for avoided in words]
        for text in texts
        for name, sampled in (("PeRFlow, 4 steps", partial(g.sampled, g.perflow())), (f"base, {MANY} steps", g.many))
    }
    return Sheet(
        "Negative prompt",
        "The prompts name neither time nor weather, so the model chooses them. A negative prompt keeps a word away.",
        ["none", *(f"negative: {avoided}" for avoided in words[1:])],
        rows,
        to=None,
    )


def low_rank(g: PictureGraph, made: Prepared) -> Sheet:
    models = [g.perflow(), *(g.perflow(delta=made.low_rank[rank]) for rank in RANKS), g.perflow(0.0)]
    return Sheet(
        "Low rank",
        "Extract PeRFlow Delta made the low-rank files. Four steps each; the last column has no delta.",
        ["full delta", *(f"rank {rank}" for rank in RANKS), "strength 0"],
        {text: [g.sampled(model, text) for model in models] for text in (LIGHTHOUSE, CASTLE)},
    )


def two_deltas(g: PictureGraph, made: Prepared) -> Sheet:
    low = made.low_rank[RANKS[1]]
    models = (g.perflow(), g.perflow(delta=low), g.perflow(0.5, low, g.perflow(0.5)))
    return Sheet(
        "Two deltas on one model",
        "Two Apply nodes in a row add up. The last column has half of the full delta and half of its low-rank file.",
        ["full delta", f"rank {RANKS[1]}", "half of each"],
        {text: [g.sampled(model, text) for model in models] for text in (LIGHTHOUSE, BALLOON)},
    )


def lora(g: PictureGraph, made: Prepared) -> Sheet:
    base = g.base((made.lora, 1.0))
    accelerated = [g.perflow(model=g.base((made.lora, value))) for value in (1.0, 0.5, 0.0)]
    rows = {
        text: [
            g.many(text, model=base),
            g.sampled(base, text, cfg=CFG),
            *(g.sampled(model, text) for model in accelerated),
        ]
        for text in (LIGHTHOUSE, HOUSE)
    }
    return Sheet(
        "A LoRA of another style",
        "ComfyUI's own Train LoRA node trained it for the base model, with 48 drawings in neon. The training was "
        "short, so the LoRA has learned only a part of the style. It changes PeRFlow's pictures as it changes the "
        "base's.",
        [f"base + LoRA, {MANY} steps", "base + LoRA, 4 steps", "PeRFlow + LoRA", "LoRA 0.5", "no LoRA"],
        rows,
    )


def image_to_image(g: PictureGraph, made: Prepared) -> Sheet:
    values = (0.25, 0.5, 0.75, 1.0)
    source = g.encoded(DRAWN)
    night = "a red house on a hill at night, snowy"

    def row(picture: Callable[..., Link]) -> list[Link]:
        return [g.decoded(source), *(picture(latent=source, denoise=value) for value in values)]

    return Sheet(
        "Image to image",
        "The source is a drawing of a red house on a hill at noon.",
        ["source", *(f"denoise {value:g}" for value in values)],
        {
            f"PeRFlow, 4 steps: {night}": row(partial(g.sampled, g.perflow(), night)),
            f"base, {MANY} steps: {night}": row(partial(g.many, night)),
        },
        to=None,
    )


def inpainting(g: PictureGraph, made: Prepared) -> Sheet:
    source = g.encoded(DRAWN)
    hole = g.masked(source, (28, 24, 72, 72))
    texts = ("a castle on a hill at noon", "a windmill on a hill at noon", "a tree on a hill at noon")
    rows = {
        "PeRFlow, 4 steps": [g.decoded(source), *(g.sampled(g.perflow(), text, latent=hole) for text in texts)],
        f"base, {MANY} steps": [g.decoded(source), *(g.many(text, latent=hole) for text in texts)],
    }
    return Sheet(
        "Inpainting",
        "The middle of the drawing is repainted (Set Latent Noise Mask); the rest stays as it is.",
        ["source", "castle", "windmill", "tree"],
        rows,
        to=None,
    )


def hand_over(g: PictureGraph, made: Prepared) -> Sheet:
    counts = (2, 4, 10)
    rows = {
        text: [g.many(text), g.sampled(g.perflow(), text), *(g.handed_over(text, count) for count in counts)]
        for text in (LIGHTHOUSE, CASTLE)
    }
    return Sheet(
        "Hand-over",
        "PeRFlow makes the first two windows in two steps, and the base model finishes the picture.",
        [f"base, {MANY} steps", "PeRFlow, 4 steps", *(f"2 steps, then base {count}" for count in counts)],
        rows,
    )


def edit_by_words(g: PictureGraph, made: Prepared) -> Sheet:
    more = 0.8  # of the steps, the authors' for 50 steps; the node's default is 0.5

    def edits(model: Link, words: str, places: str, emphasis: str = "", **how: Any) -> list[Link]:
        edit = partial(g.edited, model, LIGHTHOUSE, words, emphasis=emphasis, **how)
        return [
            edit()[0],
            g.sampled(model, words, **how),
            edit(cross_steps=more)[1],
            edit()[1],
            edit(blend=places)[1],
        ]

    castle = (LIGHTHOUSE.replace("lighthouse", "castle"), "lighthouse, castle")
    snowy = (LIGHTHOUSE.replace("cloudy", "snowy"), "cloudy, snowy", "snowy 2")
    return Sheet(
        "Edit by words",
        f"Prompt-to-Prompt changes words of the source's prompt, “{LIGHTHOUSE}”. The second column is the new prompt "
        f"without it, from the same noise. In the third, with cross_steps {more:g}, words stay at the source's places "
        "in all of 4 steps, so that the edit changes little. The fourth has the node's defaults: they stay there in "
        "the first two. In the last column only the places of the words that differ may change (blend, with "
        "threshold 0.6).",
        ["source", "new prompt alone", f"cross_steps {more:g}", "Prompt-to-Prompt", "with blend"],
        {
            "PeRFlow, 4 steps: lighthouse to castle": edits(g.perflow(), *castle),
            "PeRFlow, 4 steps: sunset to night": edits(
                g.perflow(), LIGHTHOUSE.replace("sunset", "night"), "sunset, night"
            ),
            "PeRFlow, 4 steps: cloudy to snowy, snowy 2": edits(g.perflow(), *snowy),
            f"base, {MANY} steps: lighthouse to castle": edits(
                g.base(), *castle, steps=MANY, cfg=CFG, scheduler="normal"
            ),
        },
    )


SHEETS: dict[str, Callable[[PictureGraph, Prepared], Sheet]] = {
    sheet.__name__.replace("_", "-"): sheet
    for sheet in (
        steps, strength, guidance, negative_prompt, low_rank, two_deltas, lora, image_to_image, inpainting, hand_over,
        edit_by_words,
    )
}  # fmt: skip
