"""What PeRFlow does on an NVIDIA GPU: seconds of whole pictures, waiting within steps, weights in every memory mode.

    python benchmarks/gpu.py [--only steps,latency,weights] [--json FILE] [--seconds N] [--folder DIR] [--small]

steps: what makes the host wait for the GPU in a step of ours and of stock euler, by torch.profiler, and the time of a
step, interleaved. latency: prompts, sampling and VAE at batch 1 and 4, the base with 25 steps beside PeRFlow with 4, 6
and 8. weights: Apply PeRFlow Delta with dynamic VRAM, without it, with --lowvram and with --novram, at two strengths
and taken away again, beside ModelMergeAdd; LoRA hooks; Extract PeRFlow Delta; TorchCompileModel.

The models are random, of SD1.5's and SDXL's real size in fp16: 16 GB of files, made on the spot in --folder (/dev/shm
is quick) and removed. Each memory mode is a process of its own. A part that has used up its share of the time leaves
the rest out and says so. --small: small UNets at 16 pixels on the CPU, to try this.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "scripts"))

import environment  # noqa: E402
from gpu_checks import comfy, latency  # noqa: E402
from gpu_checks.worker import MODES, TooLongError, Worker, serve  # noqa: E402

SHARES = {"steps": 0.15, "latency": 0.4, "weights": 0.45}  # of the time, in the order in which they run
PIXELS = {"SD1.5": 512, "SDXL": 1024}
GRACE = 45  # seconds after its time in which a job may end by itself
PAIRS = 20
RANK = 64


def main() -> None:
    comfyui_path = environment.enter()
    if sys.argv[1:2] == ["worker"]:
        work(comfyui_path, *sys.argv[2:])
        return
    chosen = arguments(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="perflow-gpu-", dir=chosen.folder) as folder:
        benchmark = Benchmark(chosen, Path(folder))
        try:
            benchmark.run()
        finally:
            benchmark.close()


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(SHARES), metavar="PARTS", help="steps, latency, weights")
    parser.add_argument("--sizes", default=",".join(PIXELS), help="SD1.5, SDXL")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the results, written after every measurement")
    parser.add_argument("--seconds", type=float, default=170, help="about how long it may take after its start")
    parser.add_argument("--folder", type=Path, help="for the models, 16 GB; else the folder for temporary files")
    parser.add_argument("--small", action="store_true", help="small UNets, 16 pixels, on the CPU")
    chosen = parser.parse_args(given)
    for name, known in (("only", SHARES), ("sizes", PIXELS)):
        asked = getattr(chosen, name).split(",")
        if unknown := set(asked) - set(known):
            parser.error(f"--{name} {', '.join(sorted(unknown))}: expected {', '.join(known)}")
        setattr(chosen, name, [each for each in known if each in asked])
    return chosen


def work(comfyui_path: Path, mode: str, folder: str) -> None:
    """The process of one memory mode."""
    started = comfy.start(comfyui_path, Path(folder), mode, MODES[mode])
    from gpu_checks import jobs

    serve(jobs.JOBS, started)


class Benchmark:
    """The parts in turn, and what they found, in the file as soon as it is known."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self.chosen, self.folder = chosen, folder
        comfy.files_of(folder).mkdir()
        self.modes = ["cpu"] if chosen.small else [*MODES][:-1] if "weights" in chosen.only else ["dynamic"]
        self.maker = "cpu" if chosen.small else "normal"  # with dynamic VRAM modules have no weights to be counted
        self.workers = {mode: Worker(mode, folder) for mode in dict.fromkeys([*self.modes, self.maker])}
        self.found: dict[str, Any] = {}
        self.writing = threading.Lock()
        self.made: dict[str, threading.Thread] = {}

    def run(self) -> None:
        self.ask(self.modes[0], "card", 120)
        for size in self.chosen.sizes:
            self.make(size)
        for made in self.made.values():
            made.join()
        started = time.monotonic()
        total = sum(SHARES[part] for part in self.chosen.only)
        share = 0.0
        for part in self.chosen.only:
            share += SHARES[part] / total
            self.say(f"\n## {part}\n")
            getattr(self, part)(started + share * self.chosen.seconds)
        self.say("done")

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def ask(self, mode: str, job: str, limit: float, **inputs: Any) -> None:
        """Do a job, note its findings; an error is one of them and the next job goes on."""
        began = time.monotonic()
        if self.workers[mode].ended:
            self.workers[mode] = Worker(mode, self.folder)
        try:
            found = self.workers[mode].ask(job, limit, **inputs)
            if self.workers[mode].ended:
                self.leave_out(mode)
        except TooLongError as error:
            found = {"error": str(error)}
        if "error" in found:
            self.say(f"  {job} {inputs} in mode {mode} failed: {found['error']}")
        seconds = round(time.monotonic() - began, 1)
        with self.writing:
            self.found.setdefault(job, []).append({"mode": mode, **inputs, "wall": seconds, **found})
            if self.chosen.json:
                self.chosen.json.write_text(json.dumps(self.found, indent=1), encoding="utf-8")

    def leave_out(self, mode: str) -> None:
        """A mode whose process ended by itself; the other parts go on without dynamic VRAM, if it was that."""
        self.modes = [other for other in self.modes if other != mode]
        if not self.modes:
            self.modes = ["cpu" if self.chosen.small else "normal"]
        for other in self.modes:
            if other not in self.workers:
                self.workers[other] = Worker(other, self.folder)

    def measure(self, end: float, mode: str, job: str, size: str, share: float = 0.0, **inputs: Any) -> None:
        """A job with a model of that size, if there is time left; one that can stop is told its share of that."""
        if end - time.monotonic() < 2:
            self.say(f"  not run, the time is up: {job}, {size}, mode {mode}")
            return
        if size not in self.made:
            self.make(size)
        self.made[size].join()
        left = max(end - time.monotonic(), 0)
        if share:
            inputs["seconds"] = round(share * left, 1)
        self.ask(mode, job, left + GRACE, size=size, **inputs)

    def make(self, size: str) -> None:
        """Start to make the files of a model."""
        inputs = {"size": size, "small": self.chosen.small}
        self.made[size] = threading.Thread(target=self.ask, args=(self.maker, "make", 180), kwargs=inputs, daemon=True)
        self.made[size].start()

    def pixels(self, size: str) -> int:
        return 16 if self.chosen.small else PIXELS[size]

    def steps(self, end: float) -> None:
        size = self.chosen.sizes[0]
        pairs = 3 if self.chosen.small else PAIRS
        self.measure(end, self.modes[0], "steps", size, 1.0, pixels=self.pixels(size), pairs=pairs)

    def latency(self, end: float) -> None:
        self.say(latency.HEAD)
        for size in self.chosen.sizes:
            for batch in (1, 4):
                self.measure(end, self.modes[0], "latency", size, 1.0, pixels=self.pixels(size), batch=batch)

    def weights(self, end: float) -> None:
        for mode in list(self.modes):  # all have started, so that none of them takes memory of the card meanwhile
            self.ask(mode, "card", 120)
        first, *others = self.modes
        for size in self.chosen.sizes:
            pixels = self.pixels(size)
            rounds = 2 if size == "SD1.5" else 1
            for mode in list(self.modes[:2]):
                self.measure(end, mode, "returns", size, pixels=pixels)
                self.memory(end, mode, size, rounds)
            for rank in (RANK, 0):
                self.measure(end, first, "extract", size, rank=rank)
            if size == "SD1.5":
                self.measure(end, first, "hooks", size, pixels=pixels)
            for mode in list(self.modes[2:]):
                self.memory(end, mode, size, rounds)
            if size == self.chosen.sizes[-1]:
                for mode in others:
                    self.workers[mode].close()
        if not self.chosen.small:
            size = self.chosen.sizes[0]
            self.measure(end, first, "compiled", size, pixels=self.pixels(size), backend="inductor")

    def memory(self, end: float, mode: str, size: str, rounds: int) -> None:
        self.measure(end, mode, "memory", size, 0.5, pixels=self.pixels(size), rounds=rounds)


if __name__ == "__main__":
    main()
