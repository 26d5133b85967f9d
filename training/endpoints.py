"""End points of the teacher's walks, on disk, each seen several times: that is where the time goes.

A round is so many rows, made in one go and then seen `uses` times, every time at a timestep drawn anew. A lane is a
place in the global batch: lane l of a step takes a row of its own lane, so that every process keeps its own rows,
whatever their number, and together they see what one process alone would.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from perflow_core.sampling.chord import WindowChord
from perflow_core.training.reflow import Line, TeacherWalk, TimePoints, line_through, window_start

from .config import Config
from .draws import Purpose, normal, orders, uniform
from .errors import Stopped, TrainingError
from .files import numbered, remove, replace_whole
from .latents import LatentSource
from .prompts import PromptStore
from .teacher import Teacher

DTYPES = {"float32": torch.float32, "float16": torch.float16}


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


@dataclass(frozen=True)
class Examples:
    """Rows for one call of the student, on the CPU."""

    line: Line
    T: Tensor
    prompts: list[str]


class EndPoints:
    """The rounds of a run, of which the current one is in memory."""

    def __init__(
        self,
        config: Config,
        teacher: Teacher,
        prompts: PromptStore,
        source: LatentSource,
        walk: TeacherWalk,
        chord: WindowChord,
        points: TimePoints,
        lanes: Lanes,
        stopping: Callable[[], bool],
    ):
        self.config, self.teacher, self.prompts, self.source = config, teacher, prompts, source
        self.points, self.lanes, self.stopping = points, lanes, stopping
        device = teacher.device
        self.chord = chord.to(device, torch.float32)
        self.walk = walk.to(device, torch.float32)
        self.depth = -(-config.cache.endpoints // lanes.all)  # rows in a lane; the configured number rounded up
        self.folder = Path(config.output) / "endpoints"
        self.round = -1
        self._orders: tuple[tuple[int, int], Tensor] = ((-1, -1), torch.zeros(0))
        self._begun = -1, ""  # a round that was begun, and how far the source had been read then
        self._check_size()

    @property
    def steps(self) -> int:
        """Student steps that a round lasts."""
        return self.depth * self.config.cache.uses

    def _check_size(self) -> None:
        """Rounds stay on disk until a state is saved that no longer needs them."""
        cache = self.config.cache
        row = 2 * torch.Size(self.source.shape).numel() * DTYPES[cache.precision].itemsize
        rounds = 2 + (self.config.save.every - 1) // self.steps
        size = rounds * self.depth * self.lanes.all * row / 1e9
        if size > cache.max_gb:
            raise TrainingError(
                f"The end points need {size:.3g} GB ({self.depth * self.lanes.all} of {row / 1e3:.0f} kB, {rounds} "
                f"times), expected at most cache.max_gb = {cache.max_gb:g}: raise it, lower cache.endpoints, or lower "
                "save.every."
            )

    def batches(self, step: int) -> Iterator[Examples]:
        """The calls of a step, each with the rows of this process; makes the round first where it is not there."""
        number, place = divmod(step, self.steps)
        if number != self.round:
            self._open(number)
        use, s = divmod(place, self.depth)
        mine, seed = self.lanes.mine, self.config.seed
        U = uniform((self.depth, self.lanes.all), seed, Purpose.POINT, number, use)[s, mine]
        if self._orders[0] != (number, use):
            self._orders = (number, use), orders(self.depth, self.lanes.all, seed, Purpose.LANE, number, use)[:, mine]
        rows = self._orders[1][s] * len(mine) + torch.arange(len(mine))
        T = self.points.timesteps(self.w[rows], U)
        for call in range(self.lanes.accumulation):
            part = slice(call * self.lanes.batch, (call + 1) * self.lanes.batch)
            chosen = rows[part]
            line = Line(self.w[chosen], self.x0[chosen].float(), self.eps[chosen].float())
            yield Examples(line, T[part], [self.texts[row] for row in chosen])

    def forget(self, step: int) -> None:
        """Delete the rounds that no state from this step on needs."""
        for _, folder in numbered(self._mine, "round", lambda number: number < step // self.steps):
            remove(folder)

    def place(self, step: int) -> str:
        """How far the source had been read before the round of this step; what a state keeps."""
        number, place = self._begun
        return place if number == step // self.steps else self.source.place

    @property
    def _mine(self) -> Path:
        return self.folder / f"process-{self.lanes.rank}"

    def _open(self, number: int) -> None:
        """Bring a round into memory, from disk where it is there."""
        self._begun = number, self.source.place
        folder = self._mine / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        mine = self.lanes.mine
        rows = (torch.arange(self.depth)[:, None] * self.lanes.all + mine).flatten()
        U_window, U_dropout = (
            uniform((self.depth * self.lanes.all,), self.config.seed, purpose, number)[rows]
            for purpose in (Purpose.WINDOW, Purpose.DROPOUT)
        )
        w, dropped = self.points.windows(U_window), U_dropout < self.config.data.prompt_dropout
        size = self.config.cache.teacher_batch
        chunks = range(0, len(rows), size)
        first = number * self.depth * self.lanes.all
        paths = [folder / f"chunk-{start // size:06}.safetensors" for start in chunks]
        done = sum(path.is_file() for path in paths)
        bar = tqdm(
            total=len(rows), initial=min(done * size, len(rows)), desc=f"end points, round {number}", unit="row",
            leave=False, disable=self.lanes.rank != 0 or done == len(paths),
        )  # fmt: skip
        with bar:
            parts = []
            for start, path in zip(chunks, paths, strict=True):
                part = slice(start, start + size)
                if not path.is_file():
                    if self.stopping():
                        raise Stopped
                    self._make(path, (first + rows[part]).tolist(), w[part], dropped[part])
                    bar.update(len(rows[part]))
                parts.append(self._read(path))
        self.w = w
        self.x0, self.eps = (torch.cat([part[name] for part, _ in parts]) for name in ("x0", "eps"))
        self.texts = [text for _, texts in parts for text in texts]
        self.round = number

    @torch.no_grad()
    def _make(self, path: Path, numbers: list[int], w: Tensor, dropped: Tensor) -> None:
        """Walk one batch of rows through their windows, and write it."""
        config, device = self.config, self.chord.t.device
        x0, captions = self.source.take(numbers)
        shown = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
        noise = normal(x0.shape[1:], numbers, config.seed, Purpose.NOISE)
        w, x0, noise = w.to(device), x0.to(device), noise.to(device)
        guided = config.teacher.guidance != "cfg_sync"
        eps = self.teacher.noise_predictor(
            self.prompts.embed(captions if guided else shown),
            self.prompts.embed([""]),
            config.teacher.guidance if isinstance(config.teacher.guidance, float) else 1.0,
        )
        X_s = window_start(self.chord, w, x0, noise, config.points.pure_noise)
        line = line_through(self.chord, w, X_s, self.walk(eps, X_s, w))
        if not bool(torch.isfinite(line.eps).all()):
            raise TrainingError(
                f"The teacher's walk gave NaN in rows {numbers[0]} to {numbers[-1]}: check the teacher, or set "
                "optimizer.precision to bf16 or no."
            )
        dtype = DTYPES[config.cache.precision]
        tensors = {name: getattr(line, name).to("cpu", dtype).contiguous() for name in ("x0", "eps")}
        said = {"prompts": json.dumps(shown), "place": self.source.place}
        replace_whole(path, safetensors.torch.save(tensors, said))

    def _read(self, path: Path) -> tuple[dict[str, Tensor], list[str]]:
        with safetensors.safe_open(str(path), framework="pt") as file:
            said = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("x0", "eps")}
        self.source.place = said["place"]
        return tensors, json.loads(said["prompts"])
