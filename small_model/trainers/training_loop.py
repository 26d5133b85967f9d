"""A training of some minutes, in one run or several: falling rate, running average of the weights, and a state file."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from perflow_core.atomic_file import atomic_write

from .devices import DEVICE, average_gradients, mean, processes


class State(TypedDict, total=False):
    seconds: float  # of training so far, all runs together
    step: int
    ema: list[Tensor]  # the running average, in the order of the parameters
    standardised: bool  # whether the autoencoder's latents have been given mean 0 and deviation 1


Losses = tuple[Tensor, dict[str, Tensor]]  # what is minimised; what is printed, by name


def arguments(
    description: str | None, pictures: int, minutes: float, batch: int, rate: float, of_rate: str = ""
) -> argparse.ArgumentParser:
    """The options that every training has, with these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=pictures)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--batch", type=int, default=batch, help="samples in a step of each process")
    parser.add_argument("--rate", type=float, default=rate, help=of_rate)
    return parser


def first_state(weights: Iterable[Tensor]) -> State:
    return {"seconds": 0.0, "step": 0, "ema": [weight.detach().clone() for weight in weights]}


def save(contents: dict[str, Any] | Tensor, file: Path) -> None:
    with atomic_write(file) as unfinished:
        torch.save(contents, unfinished)


class Training:
    """Networks and optimizers that go on from the state in `file`, if there is one.

    Only weights with requires_grad are trained and averaged. The highest rate is the first optimizer's.
    """

    SAVE_EVERY = 180  # seconds

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        file: Path,
        longest_average: float,
        largest_gradient: float = 1.0,
    ) -> None:
        self.networks, self.optimizers, self.file, self.longest = networks, optimizers, file, longest_average
        self.largest_gradient = largest_gradient
        self.weights = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
        self.rate = optimizers[0].param_groups[0]["lr"]
        self.state = first_state(self.weights)
        if file.exists():
            saved = torch.load(file, weights_only=True, map_location=DEVICE)
            for name, network in networks.items():
                network.load_state_dict(saved[name])
            for optimizer, stored in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(stored)
            self.state = saved["state"]

    def run(
        self,
        minutes: float,
        losses: Callable[[int, float], Losses],
        decay: Callable[[float], float],
        warm_up: int,
        samples: int,
        steps: float = math.inf,
    ) -> None:
        """Steps until the runs together have taken so many minutes, or made so many steps.

        losses(step, done) and decay(done) get the share of the time or of the steps that is gone, 0 to 1; `samples` of
        all processes are in a step, and the first `warm_up` steps have a lower rate.
        """
        state = self.state
        saved = began = time.monotonic()
        before, first, means = state["seconds"], state["step"], dict[str, Tensor]()
        while True:
            state["seconds"] = mean(before + time.monotonic() - began)
            done = max(state["seconds"] / (60 * minutes), state["step"] / steps)
            if done >= 1:
                break
            rate = self.rate * min(1, (state["step"] + 1) / warm_up) * decay(done)
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group["lr"] = rate
            total, shown = losses(state["step"], done)
            self._step(total)
            for name, loss in shown.items():
                share = 1 / min(state["step"] - first, 300)
                means[name] = torch.lerp(means.get(name, loss).detach(), loss.detach(), share)
            if state["step"] % 100 == 0 and processes().is_main_process:
                speed = samples * (state["step"] - first) / (time.monotonic() - began)
                losses_so_far = "  ".join(f"{name} {loss.item():.4f}" for name, loss in means.items())
                print(
                    f"{state['seconds']:6.0f} s  step {state['step']}  {losses_so_far}  {speed:.0f} a second",
                    flush=True,
                )
            if time.monotonic() - saved > self.SAVE_EVERY:
                saved = time.monotonic()
                self.save()
        self.save()

    def _step(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.weights)
        torch.nn.utils.clip_grad_norm_(self.weights, self.largest_gradient)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.state["step"] += 1
        # In step n the average keeps n / (n + 10) of itself, at most `longest`.
        share = min(self.longest, self.state["step"] / (self.state["step"] + 10))
        torch._foreach_lerp_(self.state["ema"], [weight.detach() for weight in self.weights], 1 - share)

    def save(self) -> None:
        if processes().is_main_process:
            networks = {name: network.state_dict() for name, network in self.networks.items()}
            optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
            save({**networks, "optimizers": optimizers, "state": self.state}, self.file)
