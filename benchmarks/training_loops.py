"""Both training loops on one run of training/: their seconds and, on an NVIDIA GPU, their memory."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from training_speed import AuthorsLoop, our_step

LONG_ENOUGH = 3.0  # seconds of steps
MOST_STEPS = 6


def our_loop(run: Any, device: Any) -> dict[str, Any]:
    segments, reflow = run.segments, run.segments.reflow
    free(device)
    short = replace(reflow.trajectory, entries=reflow.trajectory.entries[:, :2])
    segments.reflow = replace(reflow, trajectory=short)  # to warm up: a trajectory of one call, and a step
    our_step(run)
    segments.reflow, run.step = reflow, segments.rounds.steps
    teacher, round_steps = seconds(lambda: next(segments.batches(run.step)), device), segments.rounds.steps
    steps = steady(lambda: our_step(run), device, min(round_steps, MOST_STEPS))
    one = statistics.median(steps) + teacher / round_steps
    found = {"samples_per_second": segments.lanes.all / one, "steps": steps, "walk": teacher, "round": round_steps}
    return found | {"loss": run.losses[-1]} | memory(device)


class OnTheRunsStudent(AuthorsLoop):
    """The official loop with the run's own student, optimizer, scaler and average: two of each would not fit."""

    def make_student(self) -> None:
        self.run.accelerator.gradient_accumulation_steps = 1

    def step(self) -> None:
        run, accelerator = self.run, self.run.accelerator
        with accelerator.accumulate(run.unet):
            z, T, target, arguments = self.lesson()
            m = run.unet(z, T, **arguments, return_dict=False)[0]
            accelerator.backward((m - target).square().mean())
            accelerator.clip_grad_norm_(run._trainable(), run.config.optimizer.clip)
            run.optimizer.step()
            run.optimizer.zero_grad()
        run.ema.step(run._trainable())


def official_loop(run: Any, calls: int, device: Any) -> dict[str, Any]:
    """A step for each batch, without accumulation, which makes a difference of one optimizer's step."""
    batch = run.config.optimizer.batch_size
    loop = OnTheRunsStudent(run, batch, calls=1)
    free(device)
    loop.step()
    loop.calls = calls
    steps = steady(loop.step, device, MOST_STEPS)
    return {"samples_per_second": batch / statistics.median(steps), "steps": steps} | memory(device)


def encoding(run: Any, device: Any) -> dict[str, Any]:
    """As many pictures as the teacher walks at a time, through the VAE, as a stream of pictures has it."""
    import torch

    size = run.config.data.resolution
    free(device)
    pictures = torch.rand(run.config.cache.teacher_batch, 3, size, size)
    try:
        return {"seconds": seconds(lambda: run.teacher.encode_pictures(pictures), device)} | memory(device)
    except RuntimeError as error:  # no memory, or more numbers than a kernel can count
        return {"failed": str(error).splitlines()[0]} | memory(device)


def seconds(act: Callable[[], Any], device: Any) -> float:
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    act()
    wait()
    return time.perf_counter() - began


def steady(step: Callable[[], None], device: Any, most: int) -> list[float]:
    """The seconds of each step, until they are enough."""
    found: list[float] = []
    while len(found) < most and sum(found) < LONG_ENOUGH:
        found.append(seconds(step, device))
    return found


def free(device: Any) -> None:
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory(device: Any) -> dict[str, float]:
    """The most since `free`, in GB: in tensors, and taken by PyTorch; and what the GPU has given away now."""
    import torch

    if device.type != "cuda":
        return {}
    left, there = torch.cuda.mem_get_info()
    found = {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    return {name: value / 1e9 for name, value in {**found, "used": there - left}.items()}
