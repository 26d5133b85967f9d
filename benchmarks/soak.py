"""Many prompts in a row through one server: whether every sampler and scheduler runs, and what its memory grows by.

    python benchmarks/soak.py [prompts]

Each prompt is the text-to-image graph with a plain KSampler at 128 px, 4 steps, the small models, a new seed and the
next of ComfyUI's samplers and schedulers; 110 prompts take every sampler twice. Linux only: memory is read from /proc.
"""

import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "scripts"))

import environment  # noqa: E402
import measuring  # noqa: E402
from measuring import MB  # noqa: E402

PROMPTS = 110
SETTLED = 10  # prompts after which memory is counted: models, libraries and buffers are there by then
GRAPH = "PeRFlow SD1.5 text to image"
Prompt = dict[str, Any]


def main() -> None:
    comfyui_path = environment.enter()
    prompts = int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS
    from trial.cached_models import write_model_paths
    from trial.server import ComfyServer

    with tempfile.TemporaryDirectory(prefix="perflow-soak-") as folder:
        models = write_model_paths(Path(folder, "extra_model_paths.yaml"), comfyui_path)
        arguments = ["--extra-model-paths-config", str(models)]
        with ComfyServer(comfyui_path, Path(folder), arguments=arguments) as server:
            soak(server, prompts)


def soak(server: Any, prompts: int) -> None:
    info = server.object_info()
    samplers, schedulers = (choices(info["KSampler"], name) for name in ("sampler_name", "scheduler"))
    prompt = with_ksampler(json.loads((REPOSITORY / "workflows" / f"{GRAPH}.json").read_text(encoding="utf-8")), info)
    sizes, seconds, failed = [], {}, []
    for i in range(prompts):
        sampler, scheduler = samplers[i % len(samplers)], schedulers[i % len(schedulers)]
        inputs = {"sampler_name": sampler, "scheduler": scheduler, "seed": i}
        began = time.perf_counter()
        reason = trouble(server, prompt, inputs)
        seconds[sampler] = time.perf_counter() - began
        if reason:
            failed.append(f"{sampler}, {scheduler}: {reason}")
        sizes.append(measuring.resident(server.pid)[1])
        print(f"  {i + 1}/{prompts} {sampler}, {scheduler}: {sizes[-1] / MB:.0f} MB {reason}", flush=True)
    tell(sizes, seconds, failed)


def choices(node: dict[str, Any], name: str) -> list[str]:
    kind, *options = node["input"]["required"][name]
    return kind if isinstance(kind, list) else options[0]["options"]


def with_ksampler(workflow: dict[str, Any], info: dict[str, Any]) -> Prompt:
    """The graph in API form, a KSampler in place of the custom sampling nodes."""
    from trial.server import to_api

    prompt = to_api(workflow, info)
    by_type = {node["class_type"]: node for node in prompt.values()}
    by_type["EmptyLatentImage"]["inputs"] |= {"width": 128, "height": 128}
    sampler = by_type["SamplerCustomAdvanced"]
    inputs = {name: by_type["CFGGuider"]["inputs"][name] for name in ("model", "positive", "negative", "cfg")}
    inputs |= {"latent_image": sampler["inputs"]["latent_image"], "steps": 4, "denoise": 1.0}
    sampler |= {"class_type": "KSampler", "inputs": inputs}
    return prompt


def trouble(server: Any, prompt: Prompt, inputs: dict[str, Any]) -> str:
    """Run it; what is wrong with the picture, or nothing."""
    import numpy as np
    from PIL import Image

    next(node for node in prompt.values() if node["class_type"] == "KSampler")["inputs"] |= inputs
    try:
        outputs = server.run(prompt)["outputs"].values()
    except environment.UserError as error:
        return str(error)
    (image,) = (image for output in outputs for image in output.get("images", []) if image["type"] == "output")
    pixels = np.asarray(Image.open(io.BytesIO(server.image(**image))), dtype=float)
    return "" if pixels.std() > 1 else "the picture is one colour"


def tell(sizes: list[int], seconds: dict[str, float], failed: list[str]) -> None:
    print(f"{len(sizes)} prompts, {len(failed)} failed")
    for line in failed:
        print(f"  {line}")
    if len(sizes) > SETTLED:
        growth = sizes[-1] - sizes[SETTLED - 1]
        print(
            f"memory: {growth / MB:+.0f} MB from prompt {SETTLED} to {len(sizes)} ({growth / sizes[SETTLED - 1]:+.1%})"
        )
    slowest = max(seconds, key=seconds.__getitem__)
    print(f"slowest: {slowest} {seconds[slowest]:.1f} s, median {statistics.median(seconds.values()):.1f} s a prompt")


if __name__ == "__main__":
    main()
