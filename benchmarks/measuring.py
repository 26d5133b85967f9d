"""For benchmarks: a process of its own for every run, a watch over its time and memory, and comparisons in turn."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "scripts"))

from environment import enter  # noqa: E402

MB = 1e6
Run = Callable[[], object]


class Peaks:
    """How long a block runs, and how far readings rise above those at its start, taken every few milliseconds."""

    INTERVAL = 0.005

    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        self._read = read

    def __enter__(self) -> "Peaks":
        self.start = self._read()
        self.growth = dict.fromkeys(self.start, 0.0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.processor = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        self._done.set()
        self._thread.join()

    def found(self) -> dict[str, float]:
        """Seconds by the clock and of processor time, and growth."""
        return {"seconds": self.seconds, "processor": self.processor, **self.growth}

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._done.wait(self.INTERVAL)
            for name, value in self._read().items():
                self.growth[name] = max(self.growth[name], value - self.start[name])


def resident() -> dict[str, float]:
    """Bytes of anonymous pages (the process' own), and of all pages in memory, mapped files included (Linux only)."""
    import psutil

    memory = psutil.Process().memory_info()
    return {"anonymous": memory.rss - memory.shared, "resident": memory.rss}


@contextlib.contextmanager
def small_comfyui() -> Iterator[tuple[Any, Path]]:
    """ComfyUI with the pack, and its base folder, until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        from trial import process

        yield process.start(enter(), REPOSITORY, Path(folder)), Path(folder)


def start_comfyui(comfyui_path: Path, files: Path, base: Path):
    """ComfyUI with the pack; it finds the files as deltas and as models, and keeps UNets in 16 bits."""
    from trial import process

    comfyui = process.start(comfyui_path, REPOSITORY, base)
    import comfy.cli_args
    import folder_paths

    comfy.cli_args.args.fp16_unet = True  # as on a GPU; without it --cpu makes every UNet float32
    for kind in ("diffusion_models", "perflow"):
        folder_paths.add_model_folder_path(kind, str(files))
    return comfyui


@contextlib.contextmanager
def made_models(
    work: Callable[[Path, str, Path, Path, dict[str, Any]], dict[str, Any]], arguments: Callable[[], dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A folder with the files that `work` makes where `what` is "make", and the options of the command line.

    In a process that in_own_process started, which runs the same program: work(ComfyUI, what, files, base, options).
    """
    comfyui_path = enter()
    child_main(lambda *job: work(comfyui_path, *job))
    chosen = arguments()
    with tempfile.TemporaryDirectory(prefix="perflow-") as folder:
        print("making the models ...", flush=True)
        in_own_process("make", folder, chosen)
        yield folder, chosen


def in_own_process(what: str, files: str, chosen: dict[str, Any], show: bool = False) -> dict[str, Any]:
    """Start this script again to do one thing with these files and options; returns what its `work` found."""
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log.txt")
        with log.open("w") as out:
            command = [sys.executable, sys.argv[0], "run", what, files, json.dumps(chosen), str(result)]
            ended = subprocess.run(command, stderr=out, stdout=None if show else out, check=False)
        if ended.returncode or not result.is_file():
            sys.exit(f"{what} failed:\n" + log.read_text()[-3000:])
        return json.loads(result.read_text())


def child_main(work: Callable[[str, Path, Path, dict[str, Any]], dict[str, Any]]) -> None:
    """In a process that in_own_process started: work(what, files, base, options), note what it found, and end."""
    if sys.argv[1:2] == ["run"]:
        what, files, chosen, result = sys.argv[2:]
        with tempfile.TemporaryDirectory() as base:
            found = work(what, Path(files), Path(base), json.loads(chosen))
        Path(result).write_text(json.dumps(found), encoding="utf-8")
        sys.exit()


def warm_up(path: Path) -> None:
    """Have the file in the page cache, and touch some free memory: a virtual machine may ask its host for it."""
    import psutil
    import torch

    with path.open("rb") as file, open(os.devnull, "wb") as nowhere:
        shutil.copyfileobj(file, nowhere, 1 << 24)
    torch.ones(min(int(2.5 * path.stat().st_size), psutil.virtual_memory().available // 2), dtype=torch.uint8)


def first_step(comfyui: Any, model: Any) -> None:
    """The first of four steps; with the window schedule where the model has one."""
    import comfy.samplers
    import torch

    sampling = model.get_model_object("model_sampling")
    if "PeRFlow" in type(sampling).__name__:
        (sigmas,) = comfyui.nodes["PeRFlowWindowSchedule"].execute(model, 4, 1.0, "zero", "").result
        (sampler,) = comfyui.nodes["PeRFlowSampler"].execute("euler").result
    else:
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 4)
        sampler = comfy.samplers.sampler_object("euler")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = [[torch.zeros(1, 77, 768), {}]]
    sample(model, noise, 1.0, sampler, sigmas[:2], text, text)


def sample(model: Any, noise: Any, cfg: float, sampler: Any, sigmas: Any, positive: Any, negative: Any) -> Any:
    import comfy.sample
    import torch

    latent = torch.zeros_like(noise)
    return comfy.sample.sample_custom(
        model, noise.clone(), cfg, sampler, sigmas, positive, negative, latent, disable_pbar=True, seed=0
    )


def compare(runs: dict[str, Run], pairs: int) -> None:
    """Print median and quartiles of each run's time / the first one's, in pairs, the order turned round each time."""
    (base_name, base), *others = runs.items()
    for name, other in others:
        base(), other()
        ratios = []
        for i in range(pairs):
            seconds = {run: timeit.timeit(run, number=1) for run in ((base, other) if i % 2 else (other, base))}
            ratios.append(seconds[other] / seconds[base])
        low, median, high = statistics.quantiles(ratios, n=4)
        spread = f"middle half of {pairs} pairs: {low:.4f} to {high:.4f}"
        print(f"{name} / {base_name}: {median:.4f} ({spread})", flush=True)


def in_turn(runs: dict[str, Callable[[], dict[str, Any]]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Every run once a round, the order turned round each time."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for i in range(rounds):
        for name in reversed(runs) if i % 2 else runs:
            found[name].append(runs[name]())
            numbers = found[name][-1]
            print(
                f"  {i + 1}/{rounds} {name}: {numbers['seconds']:.2f} s ({numbers['node_seconds']:.2f} s in nodes), "
                f"peak + {numbers['anonymous'] / MB:.0f} MB anonymous, + {numbers['resident'] / MB:.0f} MB resident",
                flush=True,
            )
    return found


def summary(ratios: Sequence[float], target: str = "") -> str:
    """The median of the ratios, how far they spread, and the target."""
    spread = f"{len(ratios)} pairs: {min(ratios):.3f} to {max(ratios):.3f}"
    return f"{statistics.median(ratios):.3f} ({spread}{'; target ' + target if target else ''})"
