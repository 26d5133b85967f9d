"""One picture in four steps: gets everything it needs, runs ComfyUI with this pack, and writes a PNG.

`python scripts/demo.py` needs Python and nothing else. Without model files of your own it takes the small model that
comes along, and makes a sheet that shows what PeRFlow changes.
"""

import contextlib
import itertools
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import environment
from demo_options import parse
from environment import say
from trial import cached_models
from user_cache import run_program


def main() -> None:
    options = parse(__doc__, sys.argv[1:])
    comfyui = environment.enter(options.comfyui)  # from here on inside our environment
    import demo_graph
    from demo_graph import only
    from trial.server import ComfyServer

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # lets the server be put away
    checkpoint, delta = small_model(comfyui) if options.small else (options.checkpoint, options.delta)
    with run_folder() as base:
        paths = model_paths(base, checkpoint.absolute(), delta.absolute())
        server = ComfyServer(comfyui, base, arguments=["--extra-model-paths-config", str(paths)])
        say(f"Starting ComfyUI from {comfyui} on the {'CPU' if '--cpu' in server.arguments else 'GPU'}.")
        with server:
            info = server.object_info()
            say(f"ComfyUI is up with {len(info)} nodes.")
            prompt = demo_graph.read(info, server.log)
            demo_graph.fill_in(prompt, options, checkpoint.name, delta.name)
            progress = Progress(prompt, only(prompt, "SamplerCustomAdvanced"))
            outputs = server.run(prompt, progress)["outputs"]
            picture = server.image(**outputs[only(prompt, "SaveImage")]["images"][0])
            path = save(picture, options.out)
            if options.sheet:
                png = demo_graph.make_sheet(server, prompt, options.base_cfg)
                say(str(save(png, path.with_name(f"{path.stem}-sheet.png"))))
    timesteps = outputs[only(prompt, "PeRFlowWindowSchedule")]["text"][0]
    say(f"Timesteps visited, window by window: {timesteps}")
    say(progress.timing())
    if options.small:
        say(
            "The model is small and knows drawings only; small_model/README.md has the words that it knows. "
            "--checkpoint and --delta take other models."
        )
        say(f"Its two files load in any ComfyUI: {checkpoint} and {delta}")
    say(str(path))


def small_model(comfyui: Path) -> tuple[Path, Path]:
    """The checkpoint and the PeRFlow delta of the small trained model, made once and kept in the cache."""
    from trial.small_models.tables import TRAINED_CHECKPOINT, TRAINED_DELTA

    folder = cached_models.folder("trained", comfyui)
    return folder / TRAINED_CHECKPOINT, folder / TRAINED_DELTA


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for the server's files, kept for its log when something fails."""
    base = Path(tempfile.mkdtemp(prefix="run-", dir=environment.cache_root()))
    with contextlib.ExitStack() as ending:
        ending.callback(shutil.rmtree, base, ignore_errors=True)
        try:
            yield base
        except Exception:  # and not being stopped by hand
            ending.pop_all()
            raise


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


class Progress:
    """Says which node runs and how far sampling is, and keeps the times."""

    def __init__(self, prompt: dict[str, Any], sampler: str) -> None:
        self._prompt, self._sampler = prompt, sampler
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
            # The PeRFlow sampler divides a step that crosses a window's edge; the server then reports it again.
            again = ", another part" if done == before else ""
            say(f"  step {done} of {data['max']}{again}: {now - then:.2f} s")
            self._times.append((done, now))

    def timing(self) -> str:
        (_, start), *later = self._times
        (first, after_first), (last, end) = later[0], later[-1]
        # ComfyUI reports no fast steps, and the parts of a divided step as one step: the larger count is the right one.
        count = max(last - first, len(later) - 1)
        if count == 0:
            return f"{end - start:.2f} s for the one step, including the time to load the model."
        seconds = (end - after_first) / count
        return f"{seconds:.2f} s per step, from the server's message after the first step to the one after the last."


def save(picture: bytes, wanted: Path) -> Path:
    """Write the picture under the wanted name, or under that name with a number when it is taken."""
    from perflow_core.atomic_file import new_file, take_name

    others = (wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}") for number in itertools.count(2))
    with new_file(wanted) as file:
        file.write(picture)
        return take_name(file, itertools.chain([wanted], others)).absolute()


if __name__ == "__main__":
    run_program(main)
