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
        every = self._rows
        parts = zip(*(torch.split(part, size) for part in (*every.segment, every.T)), strict=True)
        texts = (every.prompts[start : start + size] for start in range(0, len(every.prompts), size))
        return [Rows(Segment(w, x0, eps), T, some) for (w, x0, eps, T), some in zip(parts, texts, strict=True)]

    @cached_property
    def _rows(self) -> Rows:
        """All of them, on the CPU."""
        K, seed = self.reflow.chord.K, self.config.seed
        x0, captions = self.source.held
        x0, texts, w = (
            x0.repeat_interleave(K, 0),
            [text for text in captions for _ in range(K)],
            _each(K, len(captions)),
        )
        numbers = range(len(texts))
        noise = normal(x0.shape[1:], numbers, seed, Purpose.VALIDATION)
        T = self.reflow.points.timesteps(w, uniform((len(texts),), seed, Purpose.VALIDATION))
        size = self.config.cache.teacher_batch
        parts = zip(*(torch.split(part, size) for part in (w, x0, noise)), strict=True)
        made = [
            self._segment(texts[start : start + size], *part)
            for start, part in zip(numbers[::size], parts, strict=True)
        ]
        return Rows(Segment(*(torch.cat(tensors) for tensors in zip(*made, strict=True))), T, texts)

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
