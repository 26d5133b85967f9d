"""Latents in files before training begins: of pictures in folders, or drawn by the teacher for a list of prompts.

A file says what it was made with (`made_with`) and which rows it holds; the captions beside it are those of today.
"""

import json
from collections.abc import Callable, Collection, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from perflow_core.atomic_file import atomic_write
from perflow_core.training.curriculum import Purpose, normal

from .buckets import Buckets, Size
from .config import Config, DataConfig
from .made_with import Facts, chosen, differences, digest, of_file
from .picture_folders import folder_pictures, listed
from .pictures import decoded
from .prompts import PromptStore
from .prompts_file import prompts_in
from .stopping import Stopped, TrainingError, writing
from .teacher import Teacher

PART = 256  # rows in a file of prepared latents; a stop loses at most as many
ABSENT = "is not there"


# teacher_batch is left out: a row has the same latents, but for rounding, whatever it is made with.
PICTURES_DEPEND_ON = {
    "seed", "data.kind", "data.path", "data.resolution", "data.flip",
    "data.buckets", "data.bucket_step", "data.max_aspect",
    "the teacher's VAE",
}  # fmt: skip
SAMPLES_DEPEND_ON = {
    "seed", "data.kind", "data.resolution", "data.sampling_steps", "data.sampling_guidance",
    "teacher.prediction_type", "teacher.clip_skip", "teacher.float8", "teacher.embedded_guidance",
    "teacher.text_length", "optimizer.precision",
    "the teacher's UNet", "the teacher's text encoders", "the teacher's noise table",
}  # fmt: skip


Captions = str | list[str]  # those of a list take turns


class Share(NamedTuple):
    """This process among those that do the work: whether it is to stop, and how it tells the user."""

    rank: int
    processes: int
    stopping: Callable[[], bool]
    say: Callable[[str], None]


class Row(NamedTuple):
    """One to be made: its number, its caption, and the pixels of its picture where there is one."""

    number: int
    caption: str
    pixels: Tensor | None = None

    @property
    def size(self) -> str:
        return "" if self.pixels is None else str(Size(self.pixels.shape[-1], self.pixels.shape[-2]))


class Preparation(NamedTuple):
    """The captions of all rows, what those of some numbers depend on, those rows, and the latents of some of one size.

    called: what the user calls each row; repeats: how often an epoch has it; latents: one for each of the names.
    """

    called: list[str]
    captions: list[Captions]
    repeats: list[int]
    names: tuple[str, ...]
    facts: Callable[[range], Facts]
    rows: Callable[[range], list[Row]]
    latents: Callable[[list[Row]], tuple[Tensor, ...]]


def _pictures(config: Config, facts: Facts, teacher: Teacher, say: Callable[[str], None]) -> Preparation:
    """Pictures in folders; those that cannot be read are left out."""
    pictures, skipped, buckets = folder_pictures(config.data, say), list[str](), Buckets.of(config.data)
    files = [(picture.name, *of_file(picture.path)) for picture in pictures if picture.path]

    def made_with(numbers: range) -> Facts:
        return chosen(facts, PICTURES_DEPEND_ON) | {"the pictures": digest(files[numbers.start : numbers.stop])}

    def rows(numbers: range) -> list[Row]:
        found = decoded(pictures[numbers.start : numbers.stop], buckets, skipped)
        of_numbers = [Row(i, picture.caption, pixels) for i, (picture, pixels) in zip(numbers, found, strict=True)]
        return [row for row in of_numbers if row.pixels is not None]

    def encoded(some: list[Row]) -> tuple[Tensor, ...]:
        pixels = torch.stack([row.pixels for row in some if row.pixels is not None])
        numbers, shape = [row.number for row in some], teacher.latent_shape_at(*pixels.shape[-2:])

        def latents(pictures: Tensor, purpose: Purpose) -> Tensor:
            return teacher.encode_pictures(pictures, normal(shape, numbers, config.seed, purpose))

        usual = latents(pixels, Purpose.POSTERIOR)
        return (usual, latents(pixels.flip(-1), Purpose.MIRROR)) if config.data.flip else (usual,)

    captions = [[picture.caption, *picture.others] if picture.others else picture.caption for picture in pictures]
    names = ("latents", "mirrored") if config.data.flip else ("latents",)
    called, repeats = [picture.name for picture in pictures], [picture.repeats for picture in pictures]
    return Preparation(called, captions, repeats, names, made_with, rows, encoded)


def _samples(config: Config, facts: Facts, teacher: Teacher, prompts: PromptStore) -> Preparation:
    """The teacher's own pictures of the prompts in a file, one a line."""
    data = config.data
    texts = prompts_in(data.path, "data.path")
    empty, captions = prompts.embed([""]), texts * data.samples_per_prompt

    def made_with(numbers: range) -> Facts:
        return chosen(facts, SAMPLES_DEPEND_ON) | {"the prompts": digest(captions[numbers.start : numbers.stop])}

    def rows(numbers: range) -> list[Row]:
        return [Row(number, captions[number]) for number in numbers]

    def sampled(some: list[Row]) -> tuple[Tensor, ...]:
        noise = normal(teacher.latent_shape, [row.number for row in some], config.seed, Purpose.SAMPLE)
        conditions, guidance = prompts.embed([row.caption for row in some]), data.sampling_guidance
        return (teacher.drawn(noise.to(teacher.device), conditions, empty, guidance, data.sampling_steps),)

    return Preparation(captions, [*captions], [1] * len(captions), ("latents",), made_with, rows, sampled)


def prepare(config: Config, facts: Facts, teacher: Teacher, prompts: PromptStore, folder: Path, share: Share) -> None:
    """Write what this process has to of the files of latents, of pictures or of prompts; facts: the run's."""
    if config.data.kind == "prompts":
        work = _samples(config, facts, teacher, prompts)
    else:
        work = _pictures(config, facts, teacher, share.say)
    total = len(work.captions)
    _check_size(config.data, total * len(work.names), teacher.latent_shape)
    parts = {
        folder / f"part-{start // PART:06}.safetensors": range(total)[start : start + PART]
        for start in range(0, total, PART)
    }
    if share.rank == 0:
        _forget_others(folder, parts)
    unfit = {path: why for path, numbers in parts.items() if (why := _unfit(path, work.facts(numbers)))}
    share.say(_made_again(folder, unfit))
    if share.rank == 0:
        share.say(_missing(work, {path: numbers for path, numbers in parts.items() if path not in unfit}))
    mine = list(parts)[share.rank :: share.processes]
    todo = [path for path in mine if path in unfit]
    for path in tqdm(todo, desc="latents", unit="part", disable=share.rank != 0 or not todo):
        _make(path, work, parts[path], config, share.stopping)
    for path in mine:
        numbers = _metadata(path)["numbers"]
        _write_captions(path, *([of_all[number] for number in numbers] for of_all in (work.captions, work.repeats)))


def _check_size(data: DataConfig, total: int, shape: tuple[int, ...]) -> None:
    size = total * torch.Size(shape).numel() * 2 / 1e9
    if size > data.latents_gb:
        raise TrainingError(
            f"{total} latents need {size:.3g} GB, expected at most data.latents_gb = "
            f"{data.latents_gb:g}: raise it, give fewer pictures, or make webdataset shards of them, which are "
            "encoded as they come."
        )


def _forget_others(folder: Path, parts: Collection[Path]) -> None:
    """Delete the files of a time when there were more rows."""
    for path in set(folder.glob("part-*.safetensors")) - set(parts):
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)


def _unfit(path: Path, facts: Facts) -> str:
    """Why a file of latents cannot be used, or nothing."""
    if not path.is_file():
        return ABSENT
    try:
        changed = differences(_metadata(path)["made_with"], facts)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        return f"cannot be read ({error})"
    return changed and f"was made with {changed}"


def _made_again(folder: Path, unfit: Mapping[Path, str]) -> str:
    """The sentence that tells the user why files are made again, or nothing."""
    again = [f"{path.name} {why}" for path, why in unfit.items() if why != ABSENT]
    return f"Made again in {folder}: {len(again)} of {len(unfit)} files to be made; {again[0]}." if again else ""


def _missing(work: Preparation, kept: Mapping[Path, range]) -> str:
    """The sentence that names the rows that files of an earlier start do not have, or nothing."""
    missing = [
        number for path, numbers in kept.items() for number in sorted({*numbers} - {*_metadata(path)["numbers"]})
    ]
    if not missing:
        return ""
    names = listed([work.called[number] for number in missing])
    return f"Pictures that could not be read at an earlier start, which are left out: {len(missing)} ({names})."


def _metadata(path: Path) -> dict[str, Any]:
    """What a file says of itself: made_with, and numbers, those of its rows."""
    with safetensors.safe_open(str(path), framework="pt") as file:
        return {name: json.loads(value) for name, value in (file.metadata() or {}).items()}


def _make(path: Path, work: Preparation, numbers: range, config: Config, stopping: Callable[[], bool]) -> None:
    """Write one file of latents; of several sizes, one after the other as `latents.LatentFiles` has them.

    Raises Stopped.
    """
    rows, batch = sorted(work.rows(numbers), key=lambda row: row.size), config.cache.teacher_batch
    tensors = {} if rows else dict.fromkeys(work.names, torch.zeros(0))
    for size, of_size in groupby(rows, lambda row: row.size):
        same, made = list(of_size), []
        for first in range(0, len(same), batch):
            if stopping():
                raise Stopped
            made.append(tuple(latents.cpu() for latents in work.latents(same[first : first + batch])))
        for name, parts in zip(work.names, zip(*made, strict=True), strict=True):
            tensors[f"{name} {size}" if config.data.buckets and size else name] = torch.cat(parts).half().contiguous()
    metadata = {"made_with": json.dumps(work.facts(numbers)), "numbers": json.dumps([row.number for row in rows])}
    with writing(path), atomic_write(path) as unfinished:
        safetensors.torch.save_file(tensors, unfinished, metadata)


def _write_captions(path: Path, captions: list[Captions], repeats: list[int]) -> None:
    """Beside a file of latents, as `latents.LatentFiles` has them, where others or none are there."""
    values = captions if set(repeats) <= {1} else {"captions": captions, "repeats": repeats}
    beside, text = path.with_suffix(".json"), json.dumps(values).encode()
    if not beside.is_file() or beside.read_bytes() != text:
        with writing(beside), atomic_write(beside) as unfinished:
            unfinished.write_bytes(text)
