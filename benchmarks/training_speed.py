"""How fast training/ is beside a loop as the official script has it: samples a second on a small model, and the ratio.

    python benchmarks/training_speed.py [rounds] [--batch 32] [--threads 2]

The model is a UNet of SD1.5's kind with 64 channels (7.9 M weights) on 16x16 latents. Both train it in float32 with
AdamW, clipping and a running average. The official loop: for every step a new batch is walked through its windows in 8
steps of DDIM, each row's alphas looked up in Python, and seen once. Ours: 4 calls of DPM-Solver++(2M) for a batch, each
line seen 4 times. A round is 8 steps of each, in turn; printed is the median of the rounds, and of their ratios.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]
STEPS = 8
WALK = 8
SIZES = ("sample_size", "block_out_channels", "attention_head_dim", "down_block_types", "up_block_types")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=7)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    enter_the_training_environment()
    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), options.batch)
        authors = AuthorsLoop(run, options.batch)
        steps = {"the official loop": authors.step, "training/": lambda: our_step(run)}
        for step in steps.values():
            step()
        speeds: dict[str, list[float]] = {name: [] for name in steps}
        for i in range(options.rounds):
            for name, step in steps.items():
                speeds[name].append(STEPS * options.batch / timeit.timeit(step, number=STEPS))
            last = ", ".join(f"{name} {found[-1]:.1f}" for name, found in speeds.items())
            print(f"  {i + 1}/{options.rounds} {last}", flush=True)
        for name, found in speeds.items():
            print(f"{name}: {statistics.median(found):.1f} samples a second ({min(found):.1f} to {max(found):.1f})")
        ratios = [ours / theirs for theirs, ours in zip(*speeds.values(), strict=True)]
        print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; target 2)")


def enter_the_training_environment() -> None:
    """Start the program again with the packages of training/, unless PERFLOW_TRAINING says that they are here."""
    if not os.environ.get("PERFLOW_TRAINING"):
        from installing import LOCKS, locked_environment

        python = locked_environment(LOCKS / "training.txt")
        sys.exit(subprocess.run([str(python), *sys.argv], env={**os.environ, "PERFLOW_TRAINING": "1"}).returncode)


def make_run(folder: Path, batch: int) -> Any:
    """A run of training/ with a round of end points as long as a round of the benchmark, so that both alternate."""
    import safetensors.torch
    import torch
    from trial.small_teachers import NARROW, make_teacher

    from small_model.networks.unet import DIFFUSERS_CONFIG
    from training.config import parse
    from training.run import Run

    NARROW |= {name: DIFFUSERS_CONFIG[name] for name in SIZES} | {"norm_num_groups": 32}
    make_teacher(folder / "teacher", taesd=True)
    count = 512
    safetensors.torch.save_file({"latents": torch.randn(count, 4, 16, 16)}, folder / "latents.safetensors")
    (folder / "latents.json").write_text(json.dumps([f"picture {i % 50}" for i in range(count)]))
    config = {
        "output": str(folder / "run"),
        "teacher": {"path": str(folder / "teacher"), "solver": "dpmpp_2m", "solving_steps": 4},
        "data": {"kind": "latents", "path": str(folder / "latents.safetensors"), "resolution": 128},
        "cache": {"endpoints": 2 * batch, "uses": 4, "teacher_batch": 2 * batch, "precision": "float32"},
        "optimizer": {"steps": 100_000, "batch_size": batch},
        "preview": {"every": 0},
        "save": {"every": 4, "keep_deltas": 1},
    }
    return Run(parse(config))


def our_step(run: Any) -> None:
    run._one_step()
    run.step += 1
    if run.step % STEPS == 0:
        run.segments.forget(run.step)


class AuthorsLoop:
    """A step as their script describes it: new noise for every row, a walk of WALK DDIM steps, one use."""

    def __init__(self, run: Any, batch: int) -> None:
        import torch
        from diffusers.training_utils import EMAModel

        self.run, self.batch, self.number = run, batch, 0
        self.alphas = run.teacher.alphas_cumprod.float()
        self.unet = copy.deepcopy(run.teacher.unet).train().requires_grad_(True)
        if run.config.optimizer.channels_last:
            self.unet.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), 1e-4, fused=True)
        self.ema = EMAModel(self.unet.parameters(), 0.999, foreach=True)

    def step(self) -> None:
        import torch

        z, T, target, arguments = self.training_batch()
        m = self.unet(z, T, **arguments, return_dict=False)[0]
        (m - target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())

    def training_batch(self) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Latents, timesteps, targets and prompts for one call of the student."""
        import torch

        x0, captions = self.run.source.take(range(self.number, self.number + self.batch))
        self.number += self.batch
        prompts = self.run.prompts.embed(captions)
        t = 1 - (torch.rand(self.batch) * 1000).floor() / 1000
        w = ((1 - t) * 4 + 1e-6).long().clamp(max=3)  # an edge belongs to the window that starts there
        t_s, t_e = 1 - w / 4, 1 - (w + 1) / 4
        level = self.levels(self.entries(t_s))
        z_s = level.sqrt() * x0 + (1 - level).sqrt() * torch.randn_like(x0)
        z_e = self.walk(z_s, t_s, prompts)
        u = ((t - t_s) / (t_e - t_s))[:, None, None, None]
        gamma = (level / self.levels(self.entries(t_e))).sqrt()
        target = (z_s - gamma * z_e) / (1 - gamma**2).sqrt()
        teacher = self.run.teacher
        arguments = {**teacher.unet_arguments(prompts), **teacher.size_arguments(prompts, z_s)}
        return torch.lerp(z_s, z_e, u), 1000 * t, target, arguments

    def entries(self, t: Any) -> list[int]:
        return [max(int(1000 * float(value)) - 1, 0) for value in t]

    def levels(self, entries: list[int]) -> Any:
        """Row by row, as their solver has it."""
        import torch

        return torch.stack([self.alphas[max(entry, 0)] for entry in entries])[:, None, None, None]

    def walk(self, z: Any, t_s: Any, prompts: Any) -> Any:
        """DDIM at round(1000 t - 1), each step to the entry 1000 // (4 calls) lower; with CFG where the run has it."""
        import torch

        guidance = self.run.config.teacher.guidance
        empty = self.run.prompts.embed([""])
        trajectory, w = self.run.segments.reflow.trajectory, guidance if isinstance(guidance, float) else 1.0
        eps_of = self.run.teacher.derivative(trajectory, prompts, empty, w)
        for j in range(WALK):
            entries = [round(1000 * (float(s) - 0.25 * j / WALK) - 1) for s in t_s]
            level, next_level = self.levels(entries), self.levels([n - 1000 // (4 * WALK) for n in entries])
            eps = eps_of(z / level.sqrt(), torch.tensor(entries))
            x0 = (z - (1 - level).sqrt() * eps) / level.sqrt()
            z = next_level.sqrt() * x0 + (1 - next_level).sqrt() * eps
        return z


if __name__ == "__main__":
    main()
