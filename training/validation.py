"""The loss on examples that are held out, always the same ones at the same noise."""

from functools import cached_property

import torch
from torch import Tensor

from perflow_core.training.curriculum import Purpose, normal, uniform
from perflow_core.training.descent import WindowLosses
from perflow_core.training.reflow import Batch, Reflow, Segment

from .config import Config
from .latents import LatentFiles
from .prompts import PromptStore
from .segment_cache import Rows
from .teacher import Teacher


class Validation:
    """Each held-out example in each window once; the teacher's end points are made when they are first needed."""

    def __init__(self, config: Config, teacher: Teacher, prompts: PromptStore, source: LatentFiles, reflow: Reflow):
        self.config, self.teacher, self.prompts, self.source = config, teacher, prompts, source
        self.reflow = reflow.to(teacher.device, torch.float32)

    @torch.no_grad()
    def losses(self, unet: torch.nn.Module) -> WindowLosses:
        """By window, of a student in float32 or under autocast."""
        sums = torch.zeros(2, self.reflow.chord.K, dtype=torch.float64)
        for rows in self._batches(self.config.optimizer.batch_size):
            losses = self.reflow.losses(self._batch(unet, rows)).cpu().double()
            sums.index_add_(1, rows.segment.w, torch.stack([losses, torch.ones_like(losses)]))
        return WindowLosses(*sums)

    def _batch(self, unet: torch.nn.Module, rows: Rows) -> Batch:
        """On the teacher's device."""
        device = self.teacher.device
        network = self.teacher.network(unet, self.prompts.embed(rows.prompts), None, torch.float32)
        segment = Segment(*(part.to(device) for part in rows.segment))
        return Batch(segment, rows.T.to(torch.float32).to(device), lambda z, T: network(z, T)[0])

    def _batches(self, size: int) -> list[Rows]:
        batches = []
        for every in self._rows:
            parts = zip(*(torch.split(part, size) for part in (*every.segment, every.T)), strict=True)
            texts = (every.prompts[start : start + size] for start in range(0, len(every.prompts), size))
            batches += [Rows(Segment(w, x0, eps), T, some) for (w, x0, eps, T), some in zip(parts, texts, strict=True)]
        return batches

    @cached_property
    def _rows(self) -> list[Rows]:
        """All of them, on the CPU, by size."""
        K, held = self.reflow.chord.K, self.source.held
        U = uniform((K * sum(len(captions) for _, captions in held),), self.config.seed, Purpose.VALIDATION)
        found, first = [], 0
        for x0, captions in held:
            numbers = range(first, first + K * len(captions))
            found.append(self._of_one_size(x0, captions, numbers, U[numbers.start : numbers.stop]))
            first = numbers.stop
        return found

    def _of_one_size(self, x0: Tensor, captions: list[str], numbers: range, U: Tensor) -> Rows:
        K, seed, size = self.reflow.chord.K, self.config.seed, self.config.cache.teacher_batch
        texts, w = [text for text in captions for _ in range(K)], _each(K, len(captions))
        noise = normal(x0.shape[1:], numbers, seed, Purpose.VALIDATION)
        parts = zip(*(torch.split(part, size) for part in (w, x0.repeat_interleave(K, 0), noise)), strict=True)
        made = [self._segment(texts[size * i : size * (i + 1)], *part) for i, part in enumerate(parts)]
        segment = Segment(*(torch.cat(tensors) for tensors in zip(*made, strict=True)))
        return Rows(segment, self.reflow.points.timesteps(w, U), texts)

    def _segment(self, texts: list[str], w: Tensor, x0: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        guidance, device = self.config.teacher.guidance, self.teacher.device
        eps = self.teacher.derivative(
            self.reflow.trajectory,
            self.prompts.embed(texts),
            self.prompts.embed([""]),
            guidance if isinstance(guidance, float) else 1.0,
        )
        segment = self.reflow.segment(eps, w.to(device), x0.to(device), noise.to(device))
        return tuple(part.cpu() for part in segment)


def _each(K: int, count: int) -> Tensor:
    return torch.arange(K).repeat(count)
