"""Seconds of whole graphs without loading: prompts, sampling, VAE."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .comfy import Comfy, synchronize
from .worker import Found

RUNS = 5
PATIENCE = 4.0  # seconds; a cell gets no further run after them
PROMPT = "a photograph of a red house by the sea, evening light, highly detailed"
NEGATIVE = "blurry, low quality"


class Way(NamedTuple):
    name: str
    perflow: bool
    steps: int
    cfg: float


WAYS = (
    Way("base, dpmpp_2m karras", False, 25, 7.0),
    Way("PeRFlow", True, 4, 4.5),
    Way("PeRFlow", True, 6, 4.5),
    Way("PeRFlow", True, 8, 4.5),
    Way("PeRFlow", True, 4, 1.0),
)


def latency(comfy: Comfy, say: Callable[[str], None], size: str, pixels: int, batch: int, seconds: float) -> Found:
    """The base first, then PeRFlow, each warmed up by two steps. After the first, rows stop where the time is up."""
    end = time.monotonic() + seconds
    base, clip, vae = comfy.checkpoint(size)
    accelerated = comfy.accelerated(base, size)
    rows: list[Found] = []
    warm: set[bool] = set()
    for way in WAYS:
        if rows and time.monotonic() > end:
            say(f"| {size} {pixels} px | {batch} | {way.name}, {way.steps} steps | not run: the time is up |")
            continue
        model = accelerated if way.perflow else base
        if way.perflow not in warm:
            picture(comfy, model, clip, vae, way._replace(steps=2), pixels, batch)
            warm.add(way.perflow)
        times: list[float] = []
        began = time.monotonic()
        while len(times) < RUNS and (not times or time.monotonic() < min(began + PATIENCE, end)):
            times.append(timed(comfy, model, clip, vae, way, pixels, batch))
        row = {"size": size, "pixels": pixels, "batch": batch, "way": way.name, "steps": way.steps, "cfg": way.cfg}
        rows.append(row | {"seconds": statistics.median(times), "runs": times})
        say(line(rows[-1], rows[0]))
    return {"rows": rows}


def timed(comfy: Comfy, model: Any, clip: Any, vae: Any, way: Way, pixels: int, batch: int) -> float:
    synchronize()
    started = time.perf_counter()
    picture(comfy, model, clip, vae, way, pixels, batch)
    synchronize()
    return time.perf_counter() - started


def picture(comfy: Comfy, model: Any, clip: Any, vae: Any, way: Way, pixels: int, batch: int) -> Any:
    """As the nodes of a graph, one after the other."""
    positive, negative = (comfy.run("CLIPTextEncode", clip=clip, text=text)[0] for text in (PROMPT, NEGATIVE))
    (latent,) = comfy.run("EmptyLatentImage", width=pixels, height=pixels, batch_size=batch)
    common = dict(model=model, positive=positive, negative=negative, latent_image=latent, cfg=way.cfg)
    if way.perflow:
        chosen = dict(sampler=comfy.solver(), sigmas=comfy.sigmas(model, way.steps), add_noise=True, noise_seed=0)
        samples = comfy.run("SamplerCustom", **common, **chosen)[0]
    else:
        chosen = dict(seed=0, steps=way.steps, sampler_name="dpmpp_2m", scheduler="karras", denoise=1.0)
        samples = comfy.run("KSampler", **common, **chosen)[0]
    return comfy.run("VAEDecode", vae=vae, samples=samples)[0]


HEAD = "| model | batch | way | seconds (runs: from - to) | base / this |\n|---|---|---|---|---|"


def line(row: Found, base: Found) -> str:
    runs = f"{len(row['runs'])}: {min(row['runs']):.3f} - {max(row['runs']):.3f}"
    way = f"{row['way']}, {row['steps']} steps, CFG {row['cfg']:g}"
    model = f"{row['size']} {row['pixels']} px"
    faster = base["seconds"] / row["seconds"]
    return f"| {model} | {row['batch']} | {way} | {row['seconds']:.3f} ({runs}) | {faster:.1f} |"
