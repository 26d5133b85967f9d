"""`--plan`: what a run needs, whether it fits here, and from a measured step how long it takes."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from . import layouts, made_with, needs, output, sharding, state
from .buckets import Buckets, used
from .config import Config, without_effect
from .needs import GB, Needs, Place, Sizes

STEPS = 3  # that are measured, after a first one
OF_A_WHOLE = (
    "On the card this counts one process with all weights. FSDP spreads them over the cards, so each needs less; by "
    "how much is not computed.\n"
)


@dataclass(frozen=True)
class Pace:
    """Measured here, in seconds: a step, and a row of the teacher's end points, which all processes make together.

    card: bytes on it at most, or None.
    """

    step: float
    row: float
    card: int | None


def plan_run(config: Config, write: Callable[[str], object]) -> None:
    """Write the plan, once for all processes. Raises TrainingError where the run cannot fit or its output be used."""
    processes, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0)))

    def say(text: str) -> None:
        if rank == 0:
            write(text)

    output.check(config.output)
    said = without_effect(config)
    say(f"{said}\n" if said else "")
    here = needs.on_this_machine(processes)
    needed, place = needs.of(config, processes), Place.here(config, needs.cuda_or_cpu())
    say(text(config, needed, place, here))
    sharded = sharding.is_wanted()
    say(OF_A_WHOLE if sharded else "")
    needs.check(needed, place, config.output, here, sharded)
    say("Measuring a step ...\n")
    pace = measure(config)
    say(times(config, needed, pace))


def text(config: Config, needed: Needs, place: Place | None = None, here: int = 1) -> str:
    """The plan in lines. place: where it shall run, if that is known; here: how many processes share its RAM."""
    optimizer, buckets = config.optimizer, Buckets.of(config.data)
    counted = f" in {len(buckets.sizes)} buckets (the largest counts, {buckets.largest})" if used(config.data) else ""
    disk = sum(needed.disk.values())
    lines = [
        f"{config.student.method}, {config.data.resolution} px{counted}, {optimizer.steps} steps of "
        f"{needed.samples // optimizer.steps} samples: {needed.samples} samples on {needed.rows} trajectories",
        "On the card, in GB of 1e9 bytes, computed:",
        *_lines(needed.kept),
        "  and at a time one of these:",
        *_lines(needed.moments),
        *_lines({"reserve for CUDA and its kernels, assumed": needs.RESERVE}),
        _sum("at most", needed.card + needs.RESERVE, place.card if place else None),
        "In RAM, computed:",
        *_lines(needed.ram),
        "  and at a time one of these:",
        *_lines(needed.ram_moments),
    ]
    if place:
        name = "at most" if here == 1 else f"at most, of {here} processes"
        lines.append(_sum(name, here * needs.in_ram(needed, place), place.ram))
    lines += ["On the disk, at most:", *_lines(needed.disk), _sum("together", disk, place.disk if place else None)]
    return "\n".join(lines) + "\n"


def _lines(sizes: Sizes) -> list[str]:
    return [f"  {size / GB:8.2f}  {name}" for name, size in sizes.items() if size]


def _sum(name: str, size: int, free: int | None) -> str:
    return f"  {size / GB:8.2f}  {name}" + (f", and {free / GB:.2f} are free" if free is not None else "")


def measure(config: Config) -> Pace:
    """Time of the run's own steps, in a folder that is deleted afterwards and on random latents.

    Raises TrainingError where another run left a state in the run's own output.
    """
    from .run import Run

    accumulation, rows = config.optimizer.accumulation, config.cache.teacher_batch
    rows = max(rows, config.optimizer.batch_size * (STEPS + 1))
    teacher, _ = layouts.of_teacher(config.teacher, config.data.resolution)
    shape = needs.latent_shape(config, teacher, Buckets.of(config.data).largest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.safetensors"
        safetensors.torch.save_file({"latents": torch.randn(rows, *shape)}, path)
        path.with_suffix(".json").write_text(json.dumps(["a picture"] * rows), encoding="utf-8")
        changes = {
            "data": {"kind": "latents", "path": str(path)},
            "cache": {"endpoints": rows * int(os.environ.get("WORLD_SIZE", 1)), "max_gb": 1e6},
            "optimizer": {"accumulation": 1},
            "validation": {"held_out": 0},
        }
        sections = {name: getattr(config, name).model_copy(update=change) for name, change in changes.items()}
        run = Run(config.model_copy(update={"output": str(Path(folder) / "run"), **sections}), fits=True)
        state.of_this_run(config, made_with.of_run(config, run.digests, run.accelerator.num_processes))
        began = time.perf_counter()
        for _ in run.segments.batches(0):  # makes the round
            pass
        row = (time.perf_counter() - began) / (run.segments.rounds.depth * run.segments.lanes.all)
        run._one_step()
        began = time.perf_counter()
        for run.step in range(1, STEPS + 1):
            run._one_step()
        step = (time.perf_counter() - began) / STEPS
        run.prompts.disk.close()  # or its file could not be deleted everywhere
    card = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return Pace(step * accumulation, row, card)


def times(config: Config, needed: Needs, pace: Pace) -> str:
    """What a measured pace makes of the run, in lines."""
    hours = (pace.step * config.optimizer.steps + pace.row * needed.rows) / 3600
    share = 100 * pace.row * needed.rows / (3600 * hours)
    lines = [
        f"Measured: {pace.step:.3g} s a step, {pace.row:.3g} s for a row of the teacher's end points.",
        f"  {hours:8.2f}  hours for the run, {share:.0f} % of them the teacher's, without making latents, previews and "
        "states",
    ]
    if pace.card is not None:
        lines.append(f"  {pace.card / GB:8.2f}  GB on the card at most while these were measured")
    return "\n".join(lines) + "\n"
