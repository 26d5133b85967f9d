"""What the gallery shows: each function is one sheet of pictures with the words above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .studio import CFG, PERFLOW_CFG, TEACHER_CFG, Link, Studio

LIGHTHOUSE = "a lighthouse on a cliff at sunset"
CASTLE = "a large purple castle in the mountains at night, clear"
HOUSE = "a small red house on a hill at noon, cloudy, on the left"
BALLOON = "a yellow balloon above the sea at dawn, in the middle"
MANY = 25
RANKS = (128, 64, 16)


class Row(NamedTuple):
    label: str
    pictures: Sequence[Link]


class Sheet(NamedTuple):
    """`to`: the column that the others' differences are measured to; None where there is nothing to compare."""

    title: str
    words: str
    columns: Sequence[str]
    rows: Sequence[Row]
    to: int | None = 0


class Prepared(NamedTuple):
    """Names of what was made before: a LoRA, low-rank deltas by rank, and pictures in the server's input folder."""

    lora: str
    low_rank: dict[int, str]
    drawing: str
    drawing_words: str


def steps(s: Studio, made: Prepared) -> Sheet:
    counts = (2, 4, 6, 8, 16)
    rows = [
        Row(text, [many(s, text), *(s.sampled(s.perflow(), text, count) for count in counts)])
        for text in (LIGHTHOUSE, CASTLE)
    ]
    return Sheet(
        "Steps",
        "The base model with 25 steps, and PeRFlow from the same noise with 2 to 16. Two steps are fewer than the four "
        "windows, so they skip some of them.",
        [f"base, {MANY} steps", *(f"PeRFlow, {count} steps" for count in counts)],
        rows,
    )


def strength(s: Studio, made: Prepared) -> Sheet:
    values = (0.0, 0.25, 0.5, 0.75, 1.0, 1.2)
    rows = [
        Row(text, [many(s, text), *(s.sampled(s.perflow(value), text) for value in values)])
        for text in (LIGHTHOUSE, BALLOON)
    ]
    return Sheet(
        "Strength of the delta",
        "Four steps each, all with CFG 1. Strength 0 is the base model on PeRFlow's steps, without guidance; 1 is what "
        "was trained.",
        [f"base, {MANY} steps", *(f"strength {value:g}" for value in values)],
        rows,
    )


def guidance(s: Studio, made: Prepared) -> Sheet:
    values = (1.0, 2.0, 3.0, 5.0, 7.5)
    rows = [
        Row(f"PeRFlow, 4 steps: {HOUSE}", [s.sampled(s.perflow(), HOUSE, cfg=value) for value in values]),
        Row(f"base, {MANY} steps: {HOUSE}", [many(s, HOUSE, cfg=value) for value in values]),
    ]
    return Sheet(
        "Guidance",
        f"This delta was trained with a teacher at CFG {TEACHER_CFG:g}, so CFG 1 already gives guided pictures, in "
        "half the time of any other CFG. A higher CFG guides once more. A delta that was trained with `cfg_sync` takes "
        "the CFG of its base model.",
        [f"CFG {value:g}" for value in values],
        rows,
        to=None,
    )


def low_rank(s: Studio, made: Prepared) -> Sheet:
    rows = [
        Row(
            text,
            [
                s.sampled(s.perflow(), text),
                *(s.sampled(s.perflow(delta=made.low_rank[rank]), text) for rank in RANKS),
                s.sampled(s.perflow(0.0), text),
            ],
        )
        for text in (LIGHTHOUSE, CASTLE)
    ]
    return Sheet(
        "Low rank",
        "Extract PeRFlow Delta made the low-rank files. Four steps each; the last column has no delta.",
        ["full delta", *(f"rank {rank}" for rank in RANKS), "strength 0"],
        rows,
    )


def two_deltas(s: Studio, made: Prepared) -> Sheet:
    low = made.low_rank[RANKS[1]]
    rows = [
        Row(
            text,
            [
                s.sampled(s.perflow(), text),
                s.sampled(s.perflow(delta=low), text),
                s.sampled(s.perflow(0.5, low, s.perflow(0.5)), text),
            ],
        )
        for text in (LIGHTHOUSE, BALLOON)
    ]
    return Sheet(
        "Two deltas on one model",
        "Two Apply nodes in a row add up. The last column has half of the full delta and half of its low-rank file.",
        ["full delta", f"rank {RANKS[1]}", "half of each"],
        rows,
    )


def lora(s: Studio, made: Prepared) -> Sheet:
    def with_lora(value: float, text: str) -> Link:
        return s.sampled(s.perflow(model=s.base((made.lora, value))), text)

    rows = [
        Row(
            text,
            [
                many(s, text, model=s.base((made.lora, 1.0))),
                s.sampled(s.base((made.lora, 1.0)), text, cfg=CFG),
                *(with_lora(value, text) for value in (1.0, 0.5, 0.0)),
            ],
        )
        for text in (LIGHTHOUSE, HOUSE)
    ]
    return Sheet(
        "A LoRA of another style",
        "ComfyUI's own Train LoRA node trained it for the base model, with 48 drawings in neon. The training was "
        "short, so the LoRA has learned only a part of the style. It changes PeRFlow's pictures as it changes the "
        "base's.",
        [f"base + LoRA, {MANY} steps", "base + LoRA, 4 steps", "PeRFlow + LoRA", "LoRA 0.5", "no LoRA"],
        rows,
    )


def image_to_image(s: Studio, made: Prepared) -> Sheet:
    values = (0.25, 0.5, 0.75, 1.0)
    source = s.encoded(made.drawing)
    night = "a red house on a hill at night, snowy"

    def row(label: str, model: Link, count: int, **how: Any) -> Row:
        again = (s.sampled(model, night, count, latent=source, denoise=value, **how) for value in values)
        return Row(f"{label}: {night}", [s.decoded(source), *again])

    return Sheet(
        "Image to image",
        f"The source is a drawing of {made.drawing_words}.",
        ["source", *(f"denoise {value:g}" for value in values)],
        [
            row("PeRFlow, 4 steps", s.perflow(), 4, cfg=PERFLOW_CFG),
            row(f"base, {MANY} steps", s.base(), MANY, cfg=CFG, scheduler="normal"),
        ],
        to=None,
    )


def inpainting(s: Studio, made: Prepared) -> Sheet:
    source = s.encoded(made.drawing)
    hole = s.masked(source, (28, 24, 72, 72))
    texts = ("a castle on a hill at noon", "a windmill on a hill at noon", "a tree on a hill at noon")
    rows = [
        Row("PeRFlow, 4 steps", [s.decoded(source), *(s.sampled(s.perflow(), t, latent=hole) for t in texts)]),
        Row(f"base, {MANY} steps", [s.decoded(source), *(many(s, t, latent=hole) for t in texts)]),
    ]
    return Sheet(
        "Inpainting",
        "The middle of the drawing is repainted (Set Latent Noise Mask); the rest stays as it is.",
        ["source", "castle", "windmill", "tree"],
        rows,
        to=None,
    )


def hand_over(s: Studio, made: Prepared) -> Sheet:
    counts = (2, 4, 10)
    rows = [
        Row(text, [many(s, text), s.sampled(s.perflow(), text), *(s.handed_over(text, count) for count in counts)])
        for text in (LIGHTHOUSE, CASTLE)
    ]
    return Sheet(
        "Hand-over",
        "PeRFlow makes the first two windows in two steps, and the base model finishes the picture.",
        [f"base, {MANY} steps", "PeRFlow, 4 steps", *(f"2 steps, then base {count}" for count in counts)],
        rows,
    )


def edit_by_words(s: Studio, made: Prepared) -> Sheet:
    less = 0.5  # of the steps, where the default is 0.8

    def row(label: str, words: str, places: str, emphasis: str = "") -> Row:
        return Row(f"PeRFlow, 4 steps: {label}", edits(s.perflow(), words, places, emphasis))

    def edits(model: Link, words: str, places: str, emphasis: str = "", steps: int = 4, **how: Any) -> list[Link]:
        options: dict[str, Any] = dict(emphasis=emphasis, **how)
        first, edit = s.edited(model, LIGHTHOUSE, words, steps, **options)
        _, freer = s.edited(model, LIGHTHOUSE, words, steps, cross_steps=less, **options)
        _, blended = s.edited(model, LIGHTHOUSE, words, steps, cross_steps=less, blend=places, **options)
        return [first, s.sampled(model, words, steps, **how), edit, freer, blended]

    castle, both = "a castle on a cliff at sunset", "lighthouse, castle"
    base = edits(s.base(), castle, both, steps=MANY, cfg=CFG, scheduler="normal")
    return Sheet(
        "Edit by words",
        f"Prompt-to-Prompt changes words of the source's prompt, “{LIGHTHOUSE}”. The second column is the new prompt "
        "without it, from the same noise. The third has the node's defaults: words stay at the source's places in all "
        f"of 4 steps. With cross_steps {less:g} they do so in the first two. In the last column only the places of the "
        "words that differ may change (blend, with threshold 0.6).",
        ["source", "new prompt alone", "Prompt-to-Prompt", f"cross_steps {less:g}", f"{less:g} and blend"],
        [
            row("lighthouse to castle", castle, both),
            row("sunset to night", "a lighthouse on a cliff at night", "sunset, night"),
            row("snowy 2", "a lighthouse on a cliff at sunset, snowy", "snowy", "snowy 2"),
            Row(f"base, {MANY} steps: lighthouse to castle", base),
        ],
    )


def many(s: Studio, text: str, *, model: Link | None = None, cfg: float = CFG, latent: Link | None = None) -> Link:
    """The base model's own picture, as everybody samples it."""
    return s.sampled(model or s.base(), text, MANY, cfg=cfg, latent=latent, scheduler="normal")


SHEETS: dict[str, Callable[[Studio, Prepared], Sheet]] = {
    "steps": steps,
    "strength": strength,
    "guidance": guidance,
    "low-rank": low_rank,
    "two-deltas": two_deltas,
    "lora": lora,
    "image-to-image": image_to_image,
    "inpainting": inpainting,
    "hand-over": hand_over,
    "edit-by-words": edit_by_words,
}
