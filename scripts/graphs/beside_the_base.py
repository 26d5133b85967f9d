"""PeRFlow and its base model in one graph: the hand-over and the comparison."""

from __future__ import annotations

from typing import Any

from . import files
from .drawing import Graph, graph
from .parts import custom_sampling, decode, empty_latent, ksampler, prompts, prompts_and_size, save, sd15_with_delta


@graph("16 SD1.5 hand-over to the base")
def hand_over(g: Graph) -> None:
    g.head(f"""## PeRFlow composes, the base model finishes

{files.file_list(files.SD15, files.SD15_DELTA)}

PeRFlow takes the first two of its four steps, down to timestep 500. The base model continues from the same sigma
(1.613) with the second half of a 20-step schedule: 12 steps instead of 20.

At a window edge both models have the same noise level, so the base model takes the latent unchanged. You can hand
over at these places:

| PeRFlow steps | sigma | Split of the base's 20 |
|---|---|---|
| 1 of 4 | 4.082 | 5 |
| 2 of 4 | 1.613 | 10 |
| 3 of 4 | 0.693 | 15 |

The base's scheduler must be `simple`, which has these levels in its list. The two may have different CFG.

You can also run PeRFlow alone in two parts, with both halves of *Window Schedule*. The picture is the same as in one
run, wherever you cut. *KSamplerAdvanced* is different: there, each part shares its own steps.
""")
    checkpoint, model = sd15_with_delta(g)
    base, vae = checkpoint["MODEL"], checkpoint["VAE"]
    *conditioning, latent = prompts_and_size(g, 2, checkpoint["CLIP"], 512)
    g.column(330, "3  PeRFlow, 1000 to 500")
    parts = custom_sampling(g, model, conditioning, cfg=4.5)
    sigmas = g.add("PeRFlowWindowSchedule", tall=270, model=model, steps=4)["SIGMAS"]
    upper = g.add("SplitSigmas", sigmas=sigmas, step=2)["high_sigmas"]
    g.column(330, "4  Base model, 500 to 0")
    guider = g.add("CFGGuider", model=base, positive=conditioning[0], negative=conditioning[1], cfg=7.0)["GUIDER"]
    rest: dict[str, Any] = {"noise": g.add("DisableNoise")["NOISE"], "guider": guider}
    rest["sampler"] = g.add("KSamplerSelect", sampler_name="dpmpp_2m")["SAMPLER"]
    sigmas = g.add("BasicScheduler", model=base, scheduler="simple", steps=20)["SIGMAS"]
    lower = g.add("SplitSigmas", sigmas=sigmas, step=10)["low_sigmas"]
    g.column(400, "5  Sample and decode")
    composed = g.add("SamplerCustomAdvanced", title="Compose", **parts, sigmas=upper, latent_image=latent)["output"]
    samples = g.add("SamplerCustomAdvanced", title="Finish", **rest, sigmas=lower, latent_image=composed)["output"]
    save(g, decode(g, samples, vae), "PeRFlow-hand-over")


@graph("05 SD1.5 compared with the base")
def comparison(g: Graph) -> None:
    g.head(
        f"""## The base model at 4 and 25 steps, PeRFlow at 4

{files.file_list(files.SD15, files.SD15_DELTA)}

All three use the same seed and prompts. The base model needs its 25 steps; at 4 the picture is unfinished. PeRFlow
at 4 is meant to look like the base at 25: similar in composition, not the same picture.

The base has CFG 7.5. PeRFlow has 4.5, which its authors use for 4 steps. With CFG a step is two passes through the
network: 8 for PeRFlow in place of 50 for the base in 25 steps, so sampling takes about a sixth of the time.
""",
        728,  # the two columns below it
    )
    checkpoint, model = sd15_with_delta(g)
    base, vae = checkpoint["MODEL"], checkpoint["VAE"]
    g.column(290, "2  Prompts, size and seed")
    positive, negative = prompts(g, checkpoint["CLIP"])
    latent = empty_latent(g, 512)
    seed = g.add("PrimitiveInt", title="Seed", value=1234)["INT"]
    for group, name, sampled, steps, cfg in (
        ("3  Base, 4 steps", "base-4", base, 4, 7.5),
        ("4  Base, 25 steps", "base-25", base, 25, 7.5),
        ("5  PeRFlow, 4 steps", "PeRFlow-4", model, 4, 4.5),
    ):
        g.column(290, group)
        samples = ksampler(g, sampled, positive, negative, latent, seed=seed, steps=steps, cfg=cfg)
        image = decode(g, samples, vae)
        g.add("SaveImage", tall=360, images=image, filename_prefix=f"compare-{name}")
