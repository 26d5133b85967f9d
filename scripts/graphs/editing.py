"""Prompt-to-Prompt: pictures edited by their prompts."""

from __future__ import annotations

from . import files
from .drawing import Graph
from .parts import UNWANTED, decode, empty_latent, ksampler, save
from .pictures import sd15_model

SOURCE = "a lighthouse on a cliff at sunset"
EDITED = "a castle on a cliff at sunset\na lighthouse on a cliff at night\na lighthouse on a snowy cliff at sunset"


def by_words(g: Graph) -> None:
    g.column(400)
    g.note(
        f"""## PeRFlow: edit by words

{files.file_list(files.SD15, files.SD15_DELTA)}

**Prompt-to-Prompt** makes one batch from one noise: the source, and a picture for every line of *edited*. The edits
look where the source looks, so the layout stays. The node says what it understood of each edit.

**Change more**: lower *self_steps* (shapes), then *cross_steps* (layout). **Change less**: name the words whose place
may change in *blend*, such as `lighthouse, castle`; the rest stays the source.

**emphasis** makes words of the edits stronger or weaker: `snowy 2`.

It works without PeRFlow too: leave out *Apply PeRFlow Delta* and take 25 steps.
""",
    )
    model, clip, vae = sd15_model(g)
    g.column(400)
    g.group("2  Source and edits")
    latent = empty_latent(g, 512)
    edit = g.add(
        "PeRFlowPromptToPrompt",
        tall=660,
        model=model,
        clip=clip,
        latent=latent,
        source=SOURCE,
        edited=EDITED,
        emphasis="snowy 2",
    )
    negative = g.add("CLIPTextEncode", title="Negative prompt", tall=120, clip=clip, text=UNWANTED)["CONDITIONING"]
    g.column(340)
    g.group("3  Four steps")
    samples = ksampler(
        g,
        model=edit["MODEL"],
        positive=edit["positive"],
        negative=negative,
        latent_image=edit["LATENT"],
        steps=4,
        cfg=4.5,
    )
    save(g, decode(g, samples, vae), "PeRFlow-edit-by-words", title="Source, then its edits")
