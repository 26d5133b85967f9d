"""The segments of the teacher's trajectories, on disk, used several times: making them takes most of the time.

A round is a number of rows that are made together (`perflow_core.training.curriculum.Rounds`). A lane is a place in the
global batch: lane l of a step takes a row of its own lane, so that every process keeps its own rows, whatever their
number, and together they use what one process alone would. With aspect buckets a call takes rows of one size instead:
each process has a part of the round, whose rows are made in groups of one size (`buckets.together`).

What a round was made with stands beside it (`made_with`), and each file has a digest of that, and its rows' numbers.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from perflow_core.atomic_file import atomic_write
from perflow_core.training.curriculum import Purpose, Rounds, normal, uniform
from perflow_core.training.reflow import Reflow, Segment

from .buckets import Buckets, together, used
from .config import Config
from .latents import LatentFiles, PictureStream, shape_of
from .made_with import Facts, chosen, digest, renewed
from .prompts import PromptStore
from .state import numbered
from .stopping import Stopped, TrainingError, writing
from .teacher import Teacher

DEPENDS_ON = {
    "seed", "teacher.guidance", "teacher.solver", "teacher.solving_steps", "teacher.prediction_type",
    "teacher.clip_skip", "teacher.float8", "teacher.embedded_guidance", "teacher.text_length",
    "the teacher's UNet", "the teacher's VAE", "the teacher's text encoders", "the teacher's noise table",
    "student.windows", "points.",
    "data.kind", "data.path", "data.caption", "data.repeats", "data.flip", "data.resolution",
    "data.buckets", "data.bucket_step", "data.max_aspect", "data.prompt_dropout", "data.shuffle",
    "validation.held_out",
    "cache.endpoints", "cache.teacher_batch", "cache.precision",
    "optimizer.batch_size", "optimizer.accumulation", "accelerate's number of processes",
    "optimizer.precision", "optimizer.channels_last",  # how the teacher computes
}  # fmt: skip


@dataclass(frozen=True)
class Lanes:
    """How the global batch is spread: process `rank` of `processes`, `batch` rows a call, `accumulation` calls."""

    rank: int
    processes: int
    batch: int
    accumulation: int

    @property
    def all(self) -> int:
        return self.processes * self.batch * self.accumulation

    @property
    def mine(self) -> Tensor:
        """The lanes of this process, call by call; int64, [accumulation * batch]."""
        lanes = torch.arange(self.all).reshape(self.accumulation, self.processes, self.batch)
        return lanes[:, self.rank].flatten()


def rounds(config: Config, lanes: int) -> Rounds:
    """lanes: those of all processes."""
    calls = together(config) // config.optimizer.batch_size or 1  # for which a process has rows of one size together
    depth = calls * -(-config.cache.endpoints // (calls * lanes))  # the configured number rounded up
    return Rounds(depth, config.cache.uses, config.seed)


class EndPoints(NamedTuple):
    """Their size: bytes of a row, rows of a round, and how many rounds are on disk at a time at most."""

    row: int
    rows: int
    kept: int

    @classmethod
    def of(cls, config: Config, lanes: int, shape: Sequence[int]) -> "EndPoints":
        """lanes: those of all processes; shape: of a latent."""
        dtype: torch.dtype = getattr(torch, config.cache.precision)
        of_run = rounds(config, lanes)
        row = 2 * torch.Size(shape).numel() * dtype.itemsize
        until_a_state = 2 + (config.save.every - 1) // of_run.steps
        return cls(row, of_run.depth * lanes, min(until_a_state, -(-config.optimizer.steps // of_run.steps)))

    @property
    def on_disk(self) -> int:
        return self.row * self.rows * self.kept


class Rows(NamedTuple):
    """Rows for one call of the student, on the CPU."""

    segment: Segment
    T: Tensor
    prompts: list[str]


class SegmentCache:
    """The rounds of a run, of which the current one is in memory."""

    def __init__(
        self,
        config: Config,
        teacher: Teacher,
        prompts: PromptStore,
        source: LatentFiles | PictureStream,
        reflow: Reflow,
        lanes: Lanes,
        stopping: Callable[[], bool],
        least: Callable[[int], int] | None = None,
    ):
        """least: of the processes' numbers, where they have to ask the teacher together (`sharding`)."""
        self.config, self.teacher, self.prompts, self.source = config, teacher, prompts, source
        self.lanes, self.stopping, self.least = lanes, stopping, least
        self.reflow = reflow.to(teacher.device, torch.float32)
        self.rounds = rounds(config, lanes.all)
        self.buckets = used(config.data)
        self.folder = Path(config.output) / "endpoints"
        self._round = -1
        self.dtype: torch.dtype = getattr(torch, config.cache.precision)
        self.made_with = ""  # the digest of what files have to be made with
        self._begun = -1, ""  # a round that was begun, and how far the source had been read then
        self._check_size()

    def fit(self, facts: Facts) -> str:
        """Delete the rounds that were made with other facts than the run's; the sentence that says why, or nothing."""
        facts = chosen(facts, DEPENDS_ON) | self.source.facts
        self.made_with = digest([sorted(facts.items())])
        return renewed(self._mine, facts)

    def _check_size(self) -> None:
        """Rounds stay on disk until a state is saved that no longer needs them."""
        shape = shape_of(Buckets.of(self.config.data).largest, self.source, self.teacher)
        cache, size = self.config.cache, EndPoints.of(self.config, self.lanes.all, shape)
        if size.on_disk / 1e9 > cache.max_gb:
            raise TrainingError(
                f"The end points need {size.on_disk / 1e9:.3g} GB ({size.rows} of {size.row / 1e3:.0f} kB, {size.kept} "
                f"times), expected at most cache.max_gb = {cache.max_gb:g}: raise it, lower cache.endpoints, or lower "
                "save.every."
            )

    def batches(self, step: int) -> Iterator[Rows]:
        """The calls of a step, each with the rows of this process; makes the round first where it is not there."""
        number = self.rounds.number(step)
        if number != self._round:
            self._open(number)
        mine = self.lanes.mine
        if self.buckets:
            rows = self.rounds.of_one_kind(step, self.sizes, self.lanes.batch, self.lanes.rank).flatten()
        else:
            rows = self.rounds.order(step, self.lanes.all)[mine] * len(mine) + torch.arange(len(mine))
        T = self.reflow.points.timesteps(self.w[rows], self.rounds.uniform(step, self.lanes.all)[mine])
        size = self.lanes.batch
        for some, part in zip(torch.split(rows, size), torch.split(T, size), strict=True):
            x0, eps = (torch.stack([of_all[row] for row in some]).float() for of_all in (self.x0, self.eps))
            yield Rows(Segment(self.w[some], x0, eps), part, [self.texts[row] for row in some])

    def forget(self, step: int) -> None:
        """Delete the rounds that no state from this step on needs."""
        for number, folder in numbered(self._mine, "round"):
            if number < self.rounds.number(step):
                shutil.rmtree(folder, ignore_errors=True)

    def place(self, step: int) -> str:
        """How far the source had been read before the round of this step; what a state keeps."""
        number, place = self._begun
        return place if number == self.rounds.number(step) else self.source.place

    @property
    def _mine(self) -> Path:
        return self.folder / f"process-{self.lanes.rank}"

    def _open(self, number: int) -> None:
        """Bring a round into memory, from disk where it is there."""
        self._begun = number, self.source.place
        folder = self._mine / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        count = self.rounds.depth * self.lanes.all
        rows = self._rows(count)
        U_window, U_dropout = (
            uniform((count,), self.config.seed, purpose, number)[rows] for purpose in (Purpose.WINDOW, Purpose.DROPOUT)
        )
        w, dropped = self.reflow.points.windows(U_window), U_dropout < self.config.data.prompt_dropout
        size = together(self.config) if self.buckets else self.config.cache.teacher_batch
        chunks = range(0, len(rows), size)
        paths = [folder / f"chunk-{start // size:06}.safetensors" for start in chunks]
        numbers = (number * count + rows).tolist()
        if self.least:
            for path in paths[self.least(len(list(takewhile(Path.is_file, paths)))) :]:
                path.unlink(missing_ok=True)
        done = sum(path.is_file() for path in paths)
        bar = tqdm(
            total=len(rows), initial=min(done * size, len(rows)), desc=f"end points, round {number}", unit="row",
            leave=False, disable=self.lanes.rank != 0 or done == len(paths),
        )  # fmt: skip
        with bar:
            parts = []
            for start, path in zip(chunks, paths, strict=True):
                part = slice(start, start + size)
                new = not path.is_file()
                parts.append(self._chunk(path, numbers[part], w[part], dropped[part]))
                bar.update(len(rows[part]) if new else 0)
        self._join(parts)
        self._round = number

    def _rows(self, count: int) -> Tensor:
        """Those of this process of so many in a round, int64."""
        if self.buckets:  # in a row, as a group of one size is
            return torch.arange(count).reshape(self.lanes.processes, -1)[self.lanes.rank]
        return torch.arange(count).reshape(-1, self.lanes.all)[:, self.lanes.mine].flatten()

    def _join(self, parts: list[tuple[dict[str, Tensor], list[str]]]) -> None:
        """Chunks, each of one size; those of the same size follow each other then, otherwise in order."""

        def shape(part: tuple[dict[str, Tensor], list[str]]) -> tuple[int, ...]:
            return tuple(part[0]["x0"].shape[1:])

        parts = sorted(parts, key=shape)
        by_size = [[tensors for tensors, _ in same] for _, same in groupby(parts, shape)]
        self.x0, self.eps = (
            [row for same in by_size for row in torch.cat([tensors[name] for tensors in same])]
            for name in ("x0", "eps")
        )
        self.w = torch.cat([tensors["w"] for tensors, _ in parts])
        counts = torch.tensor([sum(len(tensors["w"]) for tensors in same) for same in by_size])
        self.sizes = torch.arange(len(by_size)).repeat_interleave(counts)
        self.texts = [text for _, texts in parts for text in texts]

    def _chunk(self, path: Path, numbers: list[int], w: Tensor, dropped: Tensor) -> tuple[dict[str, Tensor], list[str]]:
        """The tensors and the prompts of one batch of rows, made where no file has them."""
        if path.is_file():
            try:
                return self._read(path, numbers)
            except ValueError as error:
                tqdm.write(f"{path} is made again: {error}.", file=sys.stderr)
            except (OSError, safetensors.SafetensorError) as error:
                tqdm.write(f"{path} is made again: it cannot be read ({error}).", file=sys.stderr)
        if self.stopping():
            raise Stopped
        self._make(path, numbers, w, dropped)
        return self._read(path, numbers)

    def _make(self, path: Path, numbers: list[int], w: Tensor, dropped: Tensor) -> None:
        """Have the teacher make one batch of rows, and write it."""
        config = self.config
        x0, captions = self.source.take(numbers)
        shown = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
        noise = normal(x0.shape[1:], numbers, config.seed, Purpose.NOISE)
        prompts = shown if config.teacher.guidance == "cfg_sync" else captions
        size = config.cache.teacher_batch  # a group of one size is larger where a batch of the student's is
        segments = [
            self._segment(prompts[start : start + size], *(part[start : start + size] for part in (w, x0, noise)))
            for start in range(0, len(numbers), size)
        ]
        x0, eps = (torch.cat([getattr(segment, name) for segment in segments]) for name in ("x0", "eps"))
        if not bool(torch.isfinite(eps).all()):
            raise TrainingError(
                f"The teacher's trajectory gave NaN in rows {numbers[0]} to {numbers[-1]}: check the teacher, or set "
                "optimizer.precision to bf16 or no."
            )
        tensors = {name: part.to("cpu", self.dtype).contiguous() for name, part in (("x0", x0), ("eps", eps))}
        texts = {
            "numbers": json.dumps(numbers),
            "prompts": json.dumps(shown),
            "place": self.source.place,
            "made_with": self.made_with,
        }
        with writing(path), atomic_write(path) as unfinished:
            safetensors.torch.save_file(tensors | {"w": w}, unfinished, texts)

    def _segment(self, prompts: list[str], w: Tensor, x0: Tensor, noise: Tensor) -> Segment:
        """Of one batch of the teacher's, on its device."""
        guidance, device = self.config.teacher.guidance, self.teacher.device
        derivative = self.teacher.derivative(
            self.reflow.trajectory,
            self.prompts.embed(prompts),
            self.prompts.embed([""]),
            guidance if isinstance(guidance, float) else 1.0,
        )
        return self.reflow.segment(derivative, w.to(device), x0.to(device), noise.to(device))

    def _read(self, path: Path, numbers: list[int]) -> tuple[dict[str, Tensor], list[str]]:
        """The tensors and the prompts of the rows of those numbers. Raises TrainingError where others are there.

        Raises ValueError for a file that was made with something else than the run's facts.
        """
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("made_with") != self.made_with:
                raise ValueError("it was made with other settings, or nothing tells with which")
            tensors = {name: file.get_tensor(name) for name in ("w", "x0", "eps")}
        if json.loads(metadata["numbers"]) != numbers:
            raise TrainingError(
                f"{path} holds other rows than {numbers[0]} to {numbers[-1]}, which are expected there: delete "
                f"{path.parent} and start again."
            )
        self.source.place = metadata["place"]
        return tensors, json.loads(metadata["prompts"])
