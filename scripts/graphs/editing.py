"""Prompt-to-Prompt: pictures edited by their prompts."""

from __future__ import annotations

from typing import Any

from . import files
from .drawing import LONG_HEAD, SHORT_HEAD, Graph, graph
from .parts import UNWANTED, decode, empty_latent, ksampler, save
from .pictures import encoded_picture, sd15_model

SOURCE = "a lighthouse on a cliff at sunset"
EDITED = "a castle on a cliff at sunset\na lighthouse on a cliff at night\na lighthouse on a snowy cliff at sunset"
PHOTO = "a drawing of a girl in a pink dress on a green hill"
PHOTO_EDITED = "a drawing of a girl in a red dress on a green hill\na drawing of a girl in a pink dress on a snowy hill"


@graph("12 SD1.5 edit by words")
def by_words(g: Graph) -> None:
    g.head(
        f"""## PeRFlow: edit by words

{files.file_list(files.SD15, files.SD15_DELTA)}

**Prompt-to-Prompt** makes one batch from one noise: the source, and a picture for every line of *edited*. The edits
look where the source looks, so the layout stays. The node says what it understood of each edit.

**Change more**: lower *self_steps* (shapes), then *cross_steps* (layout). **Change less**: name the words whose place
may change in *blend*, such as `lighthouse, castle`; the rest stays the source.

**emphasis** makes words of the edits stronger or weaker: `snowy 2`.

It works without PeRFlow too: leave out *Apply PeRFlow Delta* and take 25 steps.
""",
        LONG_HEAD,
    )
    model, clip, vae = sd15_model(g)
    latent = empty_latent(g, 512)
    g.column(400, "2  Source and edits")
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
    g.column(340, "3  Four steps")
    negative = g.add("CLIPTextEncode", title="Negative prompt", tall=120, clip=clip, text=UNWANTED)["CONDITIONING"]
    samples = ksampler(g, edit["MODEL"], edit["positive"], negative, edit["LATENT"], steps=4, cfg=4.5)
    save(g, decode(g, samples, vae), "PeRFlow-edit-by-words", title="Source, then its edits", beside=True)


@graph("13 SD1.5 edit a photo")
def photo(g: Graph) -> None:
    g.head(
        f"""## PeRFlow: edit a photo

{files.file_list(files.SD15, files.SD15_DELTA)}

First the picture is turned back into noise: the same solver, its steps from the last to the first (*FlipSigmas*), no
noise added. From there **Prompt-to-Prompt** makes the picture again, and its edits. The first of the pictures shows
how near the source comes back.

Describe the picture in **Source prompt**, as a caption would, and the same with other words in *edited*.

**CFG** must be 1 on both ways. On a small model, in 8 steps, 0.015 of the picture is lost that way; with CFG 3 on the
way from the noise 0.67, with CFG 3 on both ways 0.18 (of the latent, root mean square).
""",
        SHORT_HEAD,
    )
    model, clip, vae = sd15_model(g)
    latent = encoded_picture(g, 2, vae)
    g.column(400, "3  Prompts")
    source = g.add("PrimitiveStringMultiline", title="Source prompt", tall=140, value=PHOTO)["STRING"]
    positive = g.add("CLIPTextEncode", title="Source", tall=120, clip=clip, text=source)["CONDITIONING"]
    negative = g.add("CLIPTextEncode", title="Negative prompt", tall=120, clip=clip, text="")["CONDITIONING"]
    g.column(340, "4  Back to noise")
    sigmas = g.add("PeRFlowWindowSchedule", tall=270, model=model, steps=8)["SIGMAS"]
    rising = g.add("FlipSigmas", sigmas=sigmas)["SIGMAS"]
    nothing = g.add("DisableNoise")["NOISE"]
    solver = g.add("PeRFlowSampler")["SAMPLER"]
    back = g.add("CFGGuider", model=model, positive=positive, negative=negative, cfg=1.0)["GUIDER"]
    parts: dict[str, Any] = {"noise": nothing, "sampler": solver}
    noise = g.add("SamplerCustomAdvanced", **parts, guider=back, sigmas=rising, latent_image=latent)["output"]
    g.column(400, "5  Edit")
    edit = g.add(
        "PeRFlowPromptToPrompt",
        tall=660,
        model=model,
        clip=clip,
        latent=noise,
        source=source,
        edited=PHOTO_EDITED,
    )
    g.column(400, "6  Sample and decode")
    guider = g.add("CFGGuider", model=edit["MODEL"], positive=edit["positive"], negative=negative, cfg=1.0)["GUIDER"]
    samples = g.add("SamplerCustomAdvanced", **parts, guider=guider, sigmas=sigmas, latent_image=edit["LATENT"])
    save(g, decode(g, samples["output"], vae), "PeRFlow-edit-a-photo", title="The picture made again, then its edits")
