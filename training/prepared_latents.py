"""Latents in files before training begins: of pictures in a folder, or drawn by the teacher for a list of prompts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from perflow_core.atomic_file import atomic_write
from perflow_core.training.curriculum import Purpose, normal
from perflow_core.training.trajectory import TeacherTrajectory

from .config import Config
from .pictures import decoded, folder_pictures
from .prompts import PromptStore
from .stopping import Stopped, TrainingError
from .teacher import Teacher

PART = 256  # rows in a file of prepared latents; a stop loses at most as many


class Row(NamedTuple):
    """One to be made: its number, its caption, and the pixels of its picture where there is one."""

    number: int
    caption: str
    pixels: Tensor | None = None


# How many rows there are, the rows of some numbers, and the latents of some rows.
Preparation = tuple[int, Callable[[range], list[Row]], Callable[[list[Row]], Tensor]]


def _pictures(config: Config, teacher: Teacher) -> Preparation:
    """A folder of pictures; those that cannot be read are left out."""
    pictures, skipped = folder_pictures(config.data), list[str]()

    def rows(numbers: range) -> list[Row]:
        found = decoded(pictures[numbers.start : numbers.stop], config.data.resolution, skipped)
        of_numbers = [Row(i, picture.caption, pixels) for i, (picture, pixels) in zip(numbers, found, strict=True)]
        return [row for row in of_numbers if row.pixels is not None]

    def encoded(some: list[Row]) -> Tensor:
        pixels = torch.stack([row.pixels for row in some if row.pixels is not None])
        noise = normal(_shape(config), [row.number for row in some], config.seed, Purpose.POSTERIOR)
        return teacher.encode_pictures(pixels, noise)

    return len(pictures), rows, encoded


def _samples(config: Config, teacher: Teacher, prompts: PromptStore) -> Preparation:
    """The teacher's own pictures of the prompts in a file, one a line."""
    data = config.data
    try:
        lines = [line.strip() for line in Path(data.path).expanduser().read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise TrainingError(
            f"data.path {data.path} cannot be read ({error.strerror}): give a text file of prompts."
        ) from error
    texts = [line for line in lines if line]
    if not texts:
        raise TrainingError(f"data.path {data.path} holds no prompts, expected one per line: write some.")
    trajectory = TeacherTrajectory.plan(teacher.alphas_cumprod, 1, data.sampling_steps).to(
        teacher.device, torch.float32
    )
    empty = prompts.embed([""])

    def rows(numbers: range) -> list[Row]:
        return [Row(number, texts[number % len(texts)]) for number in numbers]

    def sampled(some: list[Row]) -> Tensor:
        noise = normal(_shape(config), [row.number for row in some], config.seed, Purpose.SAMPLE).to(teacher.device)
        conditions = prompts.embed([row.caption for row in some])
        return trajectory.sample(teacher.noise_predictor(conditions, empty, data.sampling_guidance), noise)

    return len(texts) * data.samples_per_prompt, rows, sampled


def _shape(config: Config) -> tuple[int, int, int]:
    return 4, config.data.resolution // 8, config.data.resolution // 8


def prepare(
    config: Config,
    teacher: Teacher,
    prompts: PromptStore,
    folder: Path,
    rank: int,
    processes: int,
    stopping: Callable[[], bool],
) -> None:
    """Write the files of latents that this process still has to write, of data.kind "folder" or "prompts"."""
    pictures = config.data.kind == "folder"
    total, rows, latents_of = _pictures(config, teacher) if pictures else _samples(config, teacher, prompts)
    size, batch = total * torch.Size(_shape(config)).numel() * 2 / 1e9, config.cache.teacher_batch
    if size > config.data.latents_gb:
        raise TrainingError(
            f"The latents of {total} pictures need {size:.3g} GB, expected at most data.latents_gb = "
            f"{config.data.latents_gb:g}: raise it, give fewer pictures, or make webdataset shards of them, which are "
            "encoded as they come."
        )
    paths = {start: folder / f"part-{start // PART:06}.safetensors" for start in range(0, total, PART)}
    mine = [start for start in list(paths)[rank::processes] if not paths[start].is_file()]
    for start in tqdm(mine, desc="latents", unit="part", disable=rank != 0 or not mine):
        part = rows(range(start, min(start + PART, total)))
        latents = [torch.zeros(0, *_shape(config))]
        for first in range(0, len(part), batch):
            if stopping():
                raise Stopped
            latents.append(latents_of(part[first : first + batch]).cpu())
        # The captions first, so that a file of latents always has them beside it.
        with atomic_write(paths[start].with_suffix(".json")) as unfinished:
            unfinished.write_text(json.dumps([row.caption for row in part]), encoding="utf-8")
        with atomic_write(paths[start]) as unfinished:
            safetensors.torch.save_file({"latents": torch.cat(latents).half()}, unfinished)
