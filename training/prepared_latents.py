"""Latents in files before training begins: of pictures in a folder, or drawn by the teacher for a list of prompts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from perflow_core.training.reflow import TeacherWalk

from .config import Config, DataConfig
from .draws import Purpose, normal
from .errors import Stopped, TrainingError
from .files import replace_whole
from .pictures import Skipped, decoded, folder_pictures
from .prompts import PromptStore
from .teacher import Teacher

PART = 256  # rows in a file of prepared latents; as much as a stop can cost


def _parts(
    config: DataConfig, folder: Path, rows: int, shape: tuple[int, ...], rank: int, processes: int
) -> Iterator[tuple[Path, range]]:
    """The files of prepared latents that this process has still to write, and their rows."""
    size = rows * torch.Size(shape).numel() * 2 / 1e9
    if size > config.latents_gb:
        raise TrainingError(
            f"The latents of {rows} pictures need {size:.3g} GB, expected at most data.latents_gb = "
            f"{config.latents_gb:g}: raise it, give fewer pictures, or make webdataset shards of them, which are "
            "encoded as they come."
        )
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        (folder / f"part-{start // PART:06}.safetensors", range(start, min(start + PART, rows)))
        for start in range(0, rows, PART)
    ]
    mine = [part for part in parts[rank::processes] if not part[0].is_file()]
    bar = tqdm(mine, desc="latents", unit="part", disable=rank != 0 or not mine)
    yield from bar


def _write(path: Path, latents: list[Tensor], captions: list[str]) -> None:
    """The captions first, so that a file of latents always has them beside it."""
    stacked = torch.stack(latents).half() if latents else torch.zeros(0, 4, 1, 1, dtype=torch.float16)
    replace_whole(path.with_suffix(".json"), json.dumps(captions).encode())
    replace_whole(path, safetensors.torch.save({"latents": stacked.contiguous()}))


def prepare_pictures(
    config: Config, teacher: Teacher, folder: Path, rank: int, processes: int, stopping: Callable[[], bool]
) -> None:
    """The latents of a folder of pictures; those that cannot be read are left out."""
    data, skipped = config.data, Skipped()
    pictures = folder_pictures(data)
    shape = (4, data.resolution // 8, data.resolution // 8)
    for path, rows in _parts(data, folder, len(pictures), shape, rank, processes):
        latents: list[Tensor] = []
        captions: list[str] = []
        good = [
            (row, picture.caption, pixels)
            for row, (picture, pixels) in zip(
                rows, decoded(pictures[rows.start : rows.stop], data.resolution, skipped), strict=True
            )
            if pixels is not None
        ]
        for start in range(0, len(good), config.cache.teacher_batch):
            if stopping():
                raise Stopped
            batch = good[start : start + config.cache.teacher_batch]
            pixels = torch.stack([entry[2] for entry in batch])
            encoded_shape = (4, pixels.shape[2] // 8, pixels.shape[3] // 8)
            noise = normal(encoded_shape, [entry[0] for entry in batch], config.seed, Purpose.POSTERIOR)
            latents += list(teacher.encode_pictures(pixels, noise).cpu())
            captions += [entry[1] for entry in batch]
        _write(path, latents, captions)


def prepare_samples(
    config: Config,
    teacher: Teacher,
    prompts: PromptStore,
    folder: Path,
    rank: int,
    processes: int,
    stopping: Callable[[], bool],
) -> None:
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
    device = teacher.device
    walk = TeacherWalk.plan(teacher.alphas_cumprod, 1, data.sampling_steps).to(device, torch.float32)
    shape = (4, data.resolution // 8, data.resolution // 8)
    empty = prompts.embed([""])
    for path, rows in _parts(data, folder, len(texts) * data.samples_per_prompt, shape, rank, processes):
        latents: list[Tensor] = []
        captions = [texts[row % len(texts)] for row in rows]
        for start in range(0, len(rows), config.cache.teacher_batch):
            if stopping():
                raise Stopped
            batch = rows[start : start + config.cache.teacher_batch]
            X = noise_at_the_top(walk, normal(shape, batch, config.seed, Purpose.SAMPLE).to(device))
            conditions = prompts.embed(captions[start : start + len(batch)])
            eps = teacher.noise_predictor(conditions, empty, data.sampling_guidance)
            X = walk(eps, X, torch.zeros(len(batch), dtype=torch.int64, device=device))
            latents += list(X.cpu())
        _write(path, latents, captions)


def noise_at_the_top(walk: TeacherWalk, noise: Tensor) -> Tensor:
    """X where z is noise alone: noise sqrt(1 + sigma^2) at the walk's first level."""
    return noise * (1 + walk.sigma[walk.entries[0, 0]] ** 2).sqrt()
