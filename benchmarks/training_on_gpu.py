"""Training at full size on an NVIDIA GPU: samples a second and memory, beside a loop as the official script has it.

    python benchmarks/training_on_gpu.py [--cases sd15-full sd15-lora ...] [--seconds 60] [--results folder] [--small]

Takes training/configs/sd15.toml and sdxl.toml as they are, but for the data (random latents), the size of a round and
the method. UNet, VAE and text encoders have their real sizes and random weights, made on the GPU; the tokenizers are
small. Both loops train the same student with the same optimizer, scaler and running average. The official one walks
each batch anew, 8 calls of DDIM for SD1.5 and 10 for SDXL. Ours is timed in two parts, a round's walk and the steps
after it: samples a second = a step's samples / (a step + the walk / the steps that a round lasts), each line being used
4 times. Where a batch does not fit, half of it is tried, with twice the accumulation. At the end the VAE encodes as
many pictures as the teacher walks at a time, beside all that the run keeps on the GPU. Each case is a process of its
own; it may take --seconds once it has its packages. --small: small models, on any machine, to see that it runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import training_speed
from full_size import enlarge
from training_loops import encoding, free, official_loop, our_loop
from training_speed import REPOSITORY

CASES = ("sd15-full", "sd15-lora", "sdxl-lora", "sdxl-full")
OFFICIAL_CALLS = {"sd15": 8, "sdxl": 10}


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    if sys.argv[1:2] == ["case"]:
        one_case(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--seconds", type=float, default=60, help="the most that a case may take")
    parser.add_argument("--results", type=Path, default=Path("training_on_gpu"), help="folder for a .json of each case")
    parser.add_argument("--small", action="store_true", help="small models")
    options = parser.parse_args()
    training_speed.enter_the_training_environment()
    options.results.mkdir(parents=True, exist_ok=True)
    files = {case: options.results / f"{case}.json" for case in options.cases}
    processes = {}
    for case, file in files.items():  # all load their packages now; the first goes on when it has them, and so on
        file.unlink(missing_ok=True)
        command = [sys.executable, __file__, "case", case, str(file), str(int(options.small))]
        pipe = subprocess.PIPE
        processes[case] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    for case, process in processes.items():
        print(f"{case}: {ending(process, options.seconds)}", flush=True)
    print_table([json.loads(file.read_text()) for file in files.values() if file.is_file()])


def ending(process: Any, seconds: float) -> str:
    """Let a process that waits begin; how it ended."""
    if not any(line.strip() == "ready" for line in iter(process.stdout.readline, "")):
        return "could not start"
    began = time.perf_counter()
    try:
        process.communicate("go\n", timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"not ready after {seconds:.0f} s, ended"
    took = time.perf_counter() - began
    return f"{took:.1f} s" if process.returncode == 0 else f"failed after {took:.1f} s"


def one_case(case: str, file: str, small: str) -> None:
    import peft  # noqa: F401
    from trial import small_teachers  # noqa: F401

    import training.run  # noqa: F401

    print("ready", flush=True)
    sys.stdout = sys.stderr
    if sys.stdin.readline():
        measure(case, bool(int(small)), lambda found: Path(file).write_text(json.dumps(found, indent=1)))


def measure(case: str, small: bool, note: Callable[[dict[str, Any]], Any]) -> None:
    """Both loops, with half the batch where memory is short; `note` is given all that is known after each."""
    import torch

    kind, method = case.split("-")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    found: dict[str, Any] = {"case": case, "device": name, "torch": torch.__version__, "too_large": []}
    parts = 1
    while True:
        with tempfile.TemporaryDirectory() as folder:
            try:
                run = make_run(Path(folder), kind, method, small, parts, device)
                found |= described(run)
                found["ours"] = our_loop(run, device)
                note(found)
                found["official"] = official_loop(run, OFFICIAL_CALLS[kind], device)
                note(found)
                found["pictures"] = encoding(run, device)
                note(found)
                return
            except torch.OutOfMemoryError:
                batch = json.loads((Path(folder) / "batch.json").read_text())
                if batch < 2:
                    raise
        found["too_large"].append(batch)  # outside `except`, whose traceback would keep the models
        note(found)
        run, parts = None, 2 * parts
        free(device)


def make_run(folder: Path, kind: str, method: str, small: bool, parts: int, device: Any) -> Any:
    """The run of a shipped configuration, its batch in so many parts, with its networks made on the device."""
    import safetensors.torch
    import torch
    from accelerate.state import AcceleratorState
    from trial.small_teachers import make_teacher

    from training import config, teacher
    from training import run as program

    values = config.read(REPOSITORY / "training" / "configs" / f"{kind}.toml").model_dump()
    optimizer = values["optimizer"]
    if small:
        values["data"]["resolution"], optimizer["batch_size"], values["cache"]["teacher_batch"] = 64, 4, 8
    if device.type == "cpu":
        optimizer["precision"] = "no"
    rows = max(values["cache"]["teacher_batch"], optimizer["batch_size"] * optimizer["accumulation"])
    optimizer |= {"batch_size": optimizer["batch_size"] // parts, "accumulation": optimizer["accumulation"] * parts}
    (folder / "batch.json").write_text(json.dumps(optimizer["batch_size"]))
    size = values["data"]["resolution"] // 8
    safetensors.torch.save_file({"latents": torch.randn(64, 4, size, size)}, folder / "latents.safetensors")
    (folder / "latents.json").write_text(json.dumps([f"picture {i}" for i in range(64)]))
    values["output"], values["student"]["method"] = str(folder / "run"), method
    values["teacher"]["path"] = str(make_teacher(folder / "teacher", 2048 if kind == "sdxl" else 768))
    values["data"] |= {"kind": "latents", "path": str(folder / "latents.safetensors")}
    values["cache"] |= {"endpoints": rows}
    values["preview"]["every"] = 0
    base = teacher.load(config.TeacherConfig(**values["teacher"]), values["data"]["resolution"])
    if not small:
        enlarge(base, kind, device)
    AcceleratorState._reset_state(True)  # a second try in this process
    torch.manual_seed(0)
    with mock.patch.object(program, "load", return_value=base):
        run = program.Run(config.parse(values))
    run.base.clear()  # the first weights, which a run keeps in RAM until the end
    return run


def described(run: Any) -> dict[str, Any]:
    settings = run.config.optimizer
    return {
        "weights": sum(p.numel() for p in run.teacher.unet.parameters() if not p.requires_grad),  # no adapters
        "trained": sum(p.numel() for p in run._trainable()),
        "batch": settings.batch_size,
        "accumulation": settings.accumulation,
        "precision": settings.precision,
    }


def print_table(results: list[dict[str, Any]]) -> None:
    for name in dict.fromkeys(f"{found['device']}, torch {found['torch']}" for found in results):
        print(f"\n{name}; peak memory in GB: in tensors, and reserved by PyTorch\n")
    print("| | batch | training/, samples a second | official loop | ratio | training/, GB | official loop, GB |")
    print("|---|---|---|---|---|---|---|")
    for found in results:
        loops = [found.get("ours", {}), found.get("official", {})]
        speeds = [loop.get("samples_per_second", float("nan")) for loop in loops]
        taken = [" and ".join(f"{loop[key]:.1f}" for key in ("allocated", "reserved") if key in loop) for loop in loops]
        batch = f"{found['batch']} x {found['accumulation']}" if "batch" in found else "-"
        numbers = f"{speeds[0]:.2f} | {speeds[1]:.2f} | {speeds[0] / speeds[1]:.2f}"
        print(f"| {found['case']} | {batch} | {numbers} | {taken[0] or '-'} | {taken[1] or '-'} |")
    for found in results:
        print(
            f"\n{found['case']}: batches that did not fit {found['too_large']}; VAE: {found.get('pictures', 'no time')}"
        )


if __name__ == "__main__":
    main()
