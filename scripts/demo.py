"""One picture in four steps: gets everything it needs, runs ComfyUI with this pack, and writes a PNG.

`python scripts/demo.py` needs Python and nothing else. Without model files of your own it makes a small random model.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import cached_models
import environment
from environment import PACK, UserError, say

WORKFLOW = PACK / "workflows" / "PeRFlow SD1.5 text to image.json"
Prompt = dict[str, dict[str, Any]]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options).")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = parser.add_argument_group("your own files (both or neither)")
    own.add_argument("--checkpoint", type=Path, metavar="FILE", help="an SD1.5 checkpoint, anywhere on disk")
    own.add_argument("--delta", type=Path, metavar="FILE", help="a PeRFlow delta for SD1.5 (.safetensors)")
    parser.add_argument("--prompt", help="what to show (default: the workflow's)")
    parser.add_argument("--negative", help="what to avoid (default: the workflow's)")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps (default: 4)")
    parser.add_argument("--cfg", type=float, default=4.5, help="guidance scale (default: 4.5)")
    parser.add_argument("--size", help="N or WxH (default: 512 with your own files, else 256)")
    parser.add_argument("--seed", type=int, help="of the noise (default: the workflow's)")
    parser.add_argument("--out", type=Path, default=Path("perflow-demo.png"), help="the PNG (default: %(default)s)")
    parser.add_argument("--comfyui", metavar="VERSION", help=f"one of {', '.join(environment.VERSIONS)}")
    options = parser.parse_args(arguments)
    check_files(options)
    options.size = parse_size(options.size or ("512" if options.checkpoint else "256"))
    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}: it must be 1 or more.")
    if options.seed is not None and not 0 <= options.seed < 2**64:
        raise UserError(f"--seed is {options.seed}: it must be from 0 to 2^64 - 1.")
    return options


def check_files(options: argparse.Namespace) -> None:
    if (options.checkpoint is None) != (options.delta is None):
        given, missing = ("--checkpoint", "--delta") if options.checkpoint else ("--delta", "--checkpoint")
        raise UserError(f"{given} was given without {missing}: both files are needed, or neither.")
    for name in ("checkpoint", "delta"):
        file = getattr(options, name)
        if file and not file.is_file():
            raise UserError(f"--{name} is {file}, which is not a file: give the path of a model file.")
    if options.delta and options.delta.suffix not in (".safetensors", ".sft"):
        raise UserError(f"--delta is {options.delta.name}: only .safetensors files are read, pickles can run code.")
    if options.out.suffix.lower() != ".png" or not options.out.parent.is_dir():
        raise UserError(f"--out is {options.out}: it must end in .png and lie in a folder that exists.")


def parse_size(text: str) -> tuple[int, int]:
    numbers = text.lower().split("x")
    if len(numbers) in (1, 2) and all(number.isdecimal() for number in numbers):
        width, height = int(numbers[0]), int(numbers[-1])
        if all(64 <= side <= 4096 and side % 8 == 0 for side in (width, height)):
            return width, height
    raise UserError(
        f"--size is {text}: it must be N or WxH with multiples of 8 from 64 to 4096, such as 512 or 768x512."
    )


def main() -> None:
    options = parse(sys.argv[1:])
    comfyui = environment.enter(options.comfyui)  # from here on inside our environment
    from comfy_server import ComfyServer, to_api

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # lets the server be put away
    checkpoint, delta = (options.checkpoint, options.delta) if options.checkpoint else small_models(comfyui)
    with run_folder() as base:
        paths = model_paths(base, checkpoint.absolute(), delta.absolute())
        server = ComfyServer(comfyui, base, arguments=["--extra-model-paths-config", str(paths)])
        say(f"Starting ComfyUI from {comfyui} on the {'CPU' if '--cpu' in server.arguments else 'GPU'}.")
        with server:
            info = server.object_info()
            say(f"ComfyUI is up with {len(info)} nodes.")
            prompt = to_api(json.loads(WORKFLOW.read_text(encoding="utf-8")), info)
            check_nodes(prompt, info, server.log)
            fill_in(prompt, options, checkpoint.name, delta.name)
            progress = Progress(prompt)
            outputs = server.run(prompt, progress)["outputs"]
            picture = server.image(**outputs[only(prompt, "SaveImage")]["images"][0])
    path = save(picture, options.out)
    timesteps = outputs[only(prompt, "PeRFlowWindowSchedule")]["text"][0]
    say(f"Timesteps visited, window by window: {timesteps}")
    say(progress.timing())
    if not options.checkpoint:
        say("The model is small and random, so the picture is abstract: --checkpoint and --delta take real ones.")
    say(str(path))


def small_models(comfyui: Path) -> tuple[Path, Path]:
    """A small random checkpoint and a delta for it, made once and kept in the cache."""
    from small_models.tables import DEMO_CHECKPOINT, DEMO_DELTA

    folder = cached_models.folder("demo", comfyui)
    return folder / DEMO_CHECKPOINT, folder / DEMO_DELTA


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for the server's files, kept for its log when something fails."""
    base = Path(tempfile.mkdtemp(prefix="run-", dir=environment.cache_root()))
    failed = False
    try:
        yield base
    except Exception:  # and not being stopped by hand
        failed = True
        raise
    finally:
        if not failed:
            shutil.rmtree(base, ignore_errors=True)


def model_paths(base: Path, checkpoint: Path, delta: Path) -> Path:
    """An extra_model_paths file that shows ComfyUI the two models where they are."""
    folders = {"checkpoints": visible(checkpoint, base / "found" / "checkpoints")}
    folders["perflow"] = visible(delta, base / "found" / "perflow")
    file = base / "extra_model_paths.yaml"
    # JSON is YAML, and has no trouble with the colons and backslashes of Windows paths.
    file.write_text(json.dumps({"demo": {key: str(folder) for key, folder in folders.items()}}), encoding="utf-8")
    return file


def visible(file: Path, folder: Path) -> Path:
    """A folder that shows ComfyUI this file: one with a link to it, else its own.

    ComfyUI lists a model folder with everything below it, and the file's own may be a whole home folder.
    """
    folder.mkdir(parents=True)
    try:
        (folder / file.name).symlink_to(file)
    except OSError:  # Windows without the right to make links
        return file.parent
    return folder


def check_nodes(prompt: Prompt, info: dict[str, Any], log: Path) -> None:
    missing = sorted({node["class_type"] for node in prompt.values()} - info.keys())
    if missing:
        raise UserError(f"ComfyUI runs, but has no node {', '.join(missing)}: see why this pack did not load in {log}.")


def fill_in(prompt: Prompt, options: argparse.Namespace, checkpoint: str, delta: str) -> None:
    """Put the options into the graph; what was not given stays as the workflow has it."""
    guider = prompt[only(prompt, "CFGGuider")]["inputs"]
    size = prompt[only(prompt, "EmptyLatentImage")]["inputs"]
    guider["cfg"] = options.cfg
    size["width"], size["height"] = options.size
    prompt[only(prompt, "PeRFlowWindowSchedule")]["inputs"]["steps"] = options.steps
    prompt[only(prompt, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = checkpoint
    prompt[only(prompt, "PeRFlowApplyDelta")]["inputs"]["delta_name"] = delta
    if options.seed is not None:
        prompt[only(prompt, "RandomNoise")]["inputs"]["noise_seed"] = options.seed
    for link, text in (("positive", options.prompt), ("negative", options.negative)):
        if text is not None:
            prompt[guider[link][0]]["inputs"]["text"] = text


def only(prompt: Prompt, kind: str) -> str:
    """The id of the one node of that kind."""
    found = [name for name, node in prompt.items() if node["class_type"] == kind]
    if len(found) != 1:
        raise UserError(f"{WORKFLOW.name} has {len(found)} {kind} nodes where the demo needs one: restore the file.")
    return found[0]


class Progress:
    """Says which node runs and how far sampling is, and keeps the times."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._sampler = only(prompt, "SamplerCustomAdvanced")
        self._times: list[tuple[int, float]] = []  # steps done, at

    def __call__(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "executing" and data["node"]:
            title = self._prompt[data["node"]].get("_meta", {}).get("title")
            say(f"Running {title or self._prompt[data['node']]['class_type']}.")
            if data["node"] == self._sampler:
                self._times = [(0, time.perf_counter())]
        elif kind == "progress" and data["node"] == self._sampler:
            done, now = data["value"], time.perf_counter()
            before, then = self._times[-1]
            # The PeRFlow sampler divides a step that crosses a window's edge; the server then tells of it again.
            again = ", another part" if done == before else ""
            say(f"  step {done} of {data['max']}{again}: {now - then:.2f} s")
            self._times.append((done, now))

    def timing(self) -> str:
        (_, start), *later = self._times
        (first, after_first), (last, end) = later[0], later[-1]
        # Fast steps go untold, parts of divided steps are told as the same step: the larger count is the true one.
        count = max(last - first, len(later) - 1)
        if count == 0:
            return f"{end - start:.2f} s for the one step, with loading the model."
        return f"{(end - after_first) / count:.2f} s a step, by the server's messages after the first and the last."


def save(picture: bytes, wanted: Path) -> Path:
    """Write the picture under the wanted name, or under that name with a number when it is taken."""
    unfinished = wanted.with_name(f".{wanted.name}.{os.getpid()}")
    unfinished.write_bytes(picture)
    path, number = wanted, 1
    while not reserved(path):
        number += 1
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    unfinished.replace(path)
    return path.absolute()


def reserved(path: Path) -> bool:
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")
