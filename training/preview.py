"""Pictures on the way: the teacher beside the student from the same noise, and how far apart their end points are."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from perflow_core.atomic_file import atomic_write
from perflow_core.drawing.picture_sheet import Layout, draw_sheet, from_tensor
from perflow_core.sampling.parameterization import denoiser
from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.solvers import sample_euler
from perflow_core.training.curriculum import Purpose, normal
from perflow_core.training.reflow import Reflow

from .config import Config
from .prompts import PromptStore
from .stopping import writing
from .teacher import Prompts, Teacher

LAYOUT = Layout(edge=0, top=16, left=4, above=16, gap=4, letters=11)


class Preview:
    """A sheet a time: a row for each prompt; the teacher's picture, then the student's by number of steps."""

    def __init__(
        self,
        config: Config,
        teacher: Teacher,
        prompts: PromptStore,
        reflow: Reflow,
        shape: tuple[int, ...],
    ):
        self.config, self.teacher, self.prompts = config.preview, teacher, prompts
        self.chord, self.prediction_type = reflow.chord, reflow.prediction_type
        self.folder = Path(config.output) / "previews"
        guidance, own = config.teacher.guidance, self.config.student_guidance
        # What the student learns: with cfg_sync the teacher at any CFG, each sampled with it; or else the teacher at
        # its guidance, which the student then has without CFG.
        self.learned, self.cfg = (own, own) if isinstance(guidance, str) else (guidance, 1.0)
        rows = range(len(self.config.prompts))
        self.noise = normal(shape, rows, self.config.seed, Purpose.PREVIEW).to(teacher.device)

    def sheet(self, student: torch.nn.Module) -> tuple[Image.Image, dict[int, float]]:
        """The sheet, and for each number of steps the error: |student - teacher| / |teacher| at the end of the path.

        The teacher's end points are those of its trajectory in reference_steps, with the guidance that the student
        learns, and the student's are sampled so that the two should agree. The pictures have the configured guidance.
        """
        reference, pictures = self._of_teacher
        columns = [(f"teacher {self.config.teacher_steps}", pictures)]
        errors = {}
        for n in self.config.student_steps:
            z = self._student(student, n, self.cfg)
            errors[n] = float((z - reference).square().mean().sqrt() / reference.square().mean().sqrt())
            if self.cfg != self.config.student_guidance:
                z = self._student(student, n, self.config.student_guidance)
            columns.append((f"{n} steps, error {errors[n]:.3f}", self._pictures(z)))
        titles, pictures_of = zip(*columns, strict=True)
        return draw_sheet([*zip(*pictures_of, strict=True)], titles, self.config.prompts, LAYOUT), errors

    def write(self, sheet: Image.Image, step: int) -> Path:
        """previews/step-NUMBER.png below the run's folder."""
        path = self.folder / f"step-{step:08}.png"
        with writing(path), atomic_write(path) as unfinished:
            sheet.save(unfinished, format="PNG")
        return path

    @cached_property
    def _of_teacher(self) -> tuple[Tensor, list[Image.Image]]:
        reference = self._sampled(self.config.reference_steps, self.learned)
        return reference, self._pictures(self._sampled(self.config.teacher_steps, self.config.teacher_guidance))

    def _sampled(self, n: int, guidance: float) -> Tensor:
        """The teacher's z at the end of its trajectory in n steps."""
        return self.teacher.drawn(self.noise, *self._embedded(), guidance, n) * self.chord.c[-1].float()

    @torch.no_grad()
    def _student(self, student: Any, n: int, guidance: float) -> Tensor:
        """The student's z at the end of the path in n steps, sampled as ComfyUI does."""
        chord = self.chord.to(self.teacher.device, torch.float32)
        prompts, empty = self._embedded()
        network = self.teacher.network(student, prompts, empty if guidance != 1 else None, torch.float32)
        denoise = denoiser(network, self.prediction_type, chord, guidance)
        sigmas = window_schedule(self.chord, n, end="reference")
        return sample_euler(denoise, self.noise / chord.c[0], sigmas, chord=self.chord) * chord.c[-1]

    def _embedded(self) -> tuple[Prompts, Prompts]:
        return self.prompts.embed(self.config.prompts), self.prompts.embed([""])

    def _pictures(self, z: Tensor) -> list[Image.Image]:
        return [from_tensor(self.teacher.decode_latents(row[None])[0].permute(1, 2, 0)) for row in z]
