"""What a run needs: memory on the card and in RAM, and disk, computed before it begins. `check` stops what cannot fit.

Sizes are in bytes, and 1 GB is 1e9 of them.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from . import layouts, optimizers, peak_memory, student
from .buckets import Buckets, Size
from .config import FOLDERS, Config
from .latent_scale import LatentScale
from .latents import LatentFiles, shape_of
from .picture_folders import picture_paths
from .segment_cache import EndPoints, rounds
from .stopping import TrainingError
from .teacher import VAE_PIXELS, Prompts, Teacher

GB = 1e9
META = torch.device("meta")
PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Not computed but assumed: CUDA's context, what convolutions take inside, and gaps between tensors.
RESERVE = int(1.0 * GB)
PROGRAM = int(2.5 * GB)  # Python, PyTorch and its libraries in RAM; assumed, too

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Needs:
    """kept: on the card at all times; moments: beside it, of which only the largest counts; empty where not traced.

    ram_moments: in RAM, of which only the largest counts. disk: in the output folder at the end. rows: trajectories of
    the teacher. full: of all weights, not of a LoRA. All but samples and rows are for one process.
    """

    kept: Sizes
    moments: Sizes
    ram: Sizes
    ram_moments: Sizes
    disk: Sizes
    samples: int
    rows: int
    full: bool

    @property
    def card(self) -> int:
        return sum(self.kept.values()) + max(self.moments.values(), default=0)


def of(config: Config, processes: int = 1, traced: bool = True) -> Needs:
    """traced: find out what the computations take beside weights, which takes seconds. Raises UnknownLayoutError."""
    optimizer = config.optimizer
    lanes = processes * optimizer.batch_size * optimizer.accumulation
    of_run = rounds(config, lanes)
    rows = -(-optimizer.steps // of_run.steps) * of_run.depth * lanes
    computing = _Computing(config, processes)
    return Needs(
        kept=computing.kept(),
        moments=computing.moments() if traced else {},
        ram=computing.ram(),
        ram_moments=computing.ram_moments(),
        disk=computing.disk(lanes, rows),
        samples=optimizer.steps * lanes,
        rows=rows,
        full=computing.full,
    )


class _Computing:
    """The memory of one process, by the program's own teacher and student, on the meta device."""

    def __init__(self, config: Config, processes: int):
        self.config, self.processes = config, processes
        self.dtype = PRECISIONS[config.optimizer.precision]
        self.square, self.largest = Buckets.square(config.data.resolution).largest, Buckets.of(config.data).largest
        self.full = config.student.method == "full"
        self.teacher, self.file_bytes = layouts.of_teacher(config.teacher, config.data.resolution)
        network, helpers = self.teacher.unet, (*self.teacher.text_encoders, self.teacher.vae)
        self.loaded, self.helpers_loaded = _bytes(network), sum(map(_bytes, helpers))
        self.whole = sum(tensor.numel() for tensor in _tensors(network))
        with META:
            whole = student.make(config, self.teacher) if self.full else None
            self.teacher.to(META, self.dtype)
            self.student = whole or student.make(config, self.teacher)
        if config.teacher.float8:
            self.teacher.to_float8()
        self.frozen = sum(tensor.nbytes for tensor in _tensors(network) if not tensor.requires_grad)
        self.trained = student.trainable(self.student)
        self.numbers = sum(weight.numel() for weight in self.trained)
        self.tables = sum(buffer.nbytes for buffer in self.student.buffers()) if self.full else 0
        self.vae_bytes, self.texts_bytes = _bytes(self.teacher.vae), sum(map(_bytes, self.teacher.text_encoders))
        self.latent = latent_shape(config, self.teacher, self.largest)

    def kept(self) -> Sizes:
        config = self.config.student
        average = 4 * self.numbers if config.ema_decay and config.ema_on == "card" else 0
        return {
            "the teacher's network": self.frozen,
            "trained weights": 4 * self.numbers + self.tables,
            "the optimizer's averages": optimizers.state_bytes(self.config.optimizer.kind, self.trained),
            "the running average": average,
            "buckets to exchange gradients": 4 * self.numbers * (self.processes > 1),
            "prompts in memory": int(self.config.cache.prompts_memory_gb * GB),
        }

    def moments(self) -> Sizes:
        config, square, largest = self.config, self.square, self.largest
        optimizer, pictures = config.optimizer, VAE_PIXELS // (largest.width * largest.height)
        adding_up = optimizer.accumulation > 1
        guided = 2 if config.teacher.guidance not in ("cfg_sync", 1.0) else 1
        step = self._call(self.student, optimizer.batch_size, self.latent, torch.float32)
        with self.teacher.without_adapter():
            trajectories = self._call(self.teacher.unet, guided * config.cache.teacher_batch, self.latent, self.dtype)
            autocast = self.dtype if config.teacher.float8 else torch.float32
            of_teacher = peak_memory.of_inference(self.teacher.unet, trajectories, autocast)
        found = {
            "activations and gradients of a step": peak_memory.of_step(
                self.student, step, self.dtype, config.student.gradient_checkpointing, adding_up
            ),
            "the teacher's trajectories and the text encoders": of_teacher + self.texts_bytes,
        }
        if config.data.kind in (*FOLDERS, "webdataset"):
            batch = max(min(pictures, config.cache.teacher_batch), 1)
            encoded = self._vae("encode", batch, largest)
            found["pictures encoded by the VAE, and the text encoders"] = encoded + self.texts_bytes
        if config.preview.every:
            shape = latent_shape(config, self.teacher, square)
            sampling = self._call(self.student, 2 * len(config.preview.prompts), shape, torch.float32)
            sampled = peak_memory.of_inference(self.student, sampling, self.dtype)
            found["previews, the VAE and the text encoders"] = (
                max(sampled + self.vae_bytes, self._vae("decode", 1, square)) + self.texts_bytes
            )
        return found

    def _call(self, network: Any, batch: int, shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], Tensor]:
        """Of the teacher's or the student's network, for rows of latents of that shape, which it makes, too."""
        tokens, width, pooled = self.teacher.prompt_size

        def call() -> Tensor:
            with META:
                z, T = torch.empty(batch, *shape), torch.empty(batch)
                prompts = Prompts(torch.empty(batch, tokens, width), torch.empty(batch, pooled))
            return self.teacher.network(network, prompts, None, dtype)(z, T)[0]

        return call

    def _vae(self, what: str, batch: int, size: Size) -> int:
        """With its weights."""
        vae = self.teacher.vae
        shape = (3, size.height, size.width) if what == "encode" else latent_shape(self.config, self.teacher, size)
        frames = (1,) if LatentScale.of(vae).frames and len(shape) == 3 else ()
        given = torch.empty(batch, shape[0], *frames, *shape[1:], device=META)
        return self.vae_bytes + peak_memory.of_inference(vae, lambda: getattr(vae, what)(given), torch.float32)

    def ram(self) -> Sizes:
        config = self.config
        lanes = self.processes * config.optimizer.batch_size * config.optimizer.accumulation
        size = EndPoints.of(config, lanes, self.latent)
        average = 4 * self.numbers if config.student.ema_decay and config.student.ema_on == "cpu" else 0
        return {
            "the program": PROGRAM,
            "the weights that a delta is the difference to": self.loaded * self.full,
            "the running average": average,
            "text encoders and VAE": self.vae_bytes + self.texts_bytes,
            "end points of a round": 2 * size.row * size.rows // self.processes,  # as they are read, and joined
        }

    def ram_moments(self) -> Sizes:
        """Beside what is there all the time, from which loading needs nothing but the program."""
        models = self.loaded * (2 if self.full else 1) + 4 * self.whole * (self.full + bool(self.config.student.delta))
        there_later = sum(self.ram().values()) - PROGRAM
        loaded = models + self.helpers_loaded + self.file_bytes
        saved = 4 * self.numbers + _delta(self.config, self.trained)
        return {"loading": max(loaded - there_later, 0), "a delta or a state that is written": saved}

    def disk(self, lanes: int, rows: int) -> Sizes:
        """At most, of all processes: what a source's captions are is not read here. lanes: of all, too."""
        config, average = self.config, 4 * self.numbers * bool(self.config.student.ema_decay)
        examples, latent = _examples(config), 2 * torch.Size(self.latent).numel()
        copies = 1 + (config.data.flip and config.data.kind in FOLDERS)
        made_first = latent * copies * (examples or 0)
        captions = rows if examples is None else min(rows, examples)
        tokens, width, pooled = self.teacher.prompt_size
        prompt = self.dtype.itemsize * (tokens * width + pooled)
        prompts = min(int(config.cache.prompts_gb * GB), captions * prompt)
        state = 4 * self.numbers + average + optimizers.state_bytes(config.optimizer.kind, self.trained)
        size = EndPoints.of(config, lanes, self.latent)
        files, keep = -(-config.optimizer.steps // config.save.every), config.save.keep_deltas
        return {
            "latents": made_first,
            "embeddings of prompts": prompts * self.processes,
            "end points": size.on_disk,
            "states, and the next one": (config.save.keep_states + 1) * state,
            "deltas": (min(files, keep + 1) if keep else files) * _delta(config, self.trained),
        }


def latent_shape(config: Config, teacher: Teacher, size: Size) -> tuple[int, ...]:
    """Of pictures of that size, or of the user's latents, which may be videos. Raises TrainingError."""
    shape = teacher.latent_shape_at(size.height, size.width)
    if config.data.kind != "latents" or len(shape) == 3:
        return shape
    return shape_of(size, LatentFiles(Path(config.data.path), config.seed), teacher)


def _tensors(network: torch.nn.Module) -> Iterator[Tensor]:
    """Weights, and tables such as SD3's of positions."""
    yield from network.parameters()
    yield from network.buffers()


def _bytes(network: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in _tensors(network))


def _delta(config: Config, weights: list[torch.nn.Parameter]) -> int:
    """Bytes of a delta's file, from the weights that are trained."""
    rank, itemsize = config.save.rank, getattr(torch, config.save.precision).itemsize
    if config.student.method == "lora" or not rank:
        return itemsize * sum(weight.numel() for weight in weights)
    small = (min(rank * (w.shape[0] + w[0].numel()), w.numel()) if w.ndim > 1 else w.numel() for w in weights)
    return itemsize * sum(small)


def _examples(config: Config) -> int | None:
    """Pictures or prompts at most, where it can be told."""
    path = Path(config.data.path)
    try:
        if config.data.kind in FOLDERS:
            return len(picture_paths(config.data))
        if config.data.kind == "prompts":
            return path.read_bytes().count(b"\n") * config.data.samples_per_prompt + 1
    except OSError:  # the run says it
        pass
    return None


@dataclass(frozen=True)
class Place:
    """What there is: free bytes on the card (None for a CPU), in RAM and on the output's disk, this run's files too."""

    card: int | None
    ram: int
    disk: int

    @classmethod
    def here(cls, config: Config, device: torch.device) -> "Place":
        card = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
        output = Path(config.output).absolute()
        there = next(folder for folder in (output, *output.parents) if folder.is_dir())
        own = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        return cls(card, psutil.virtual_memory().available, shutil.disk_usage(there).free + own)


def in_ram(needs: Needs, place: Place) -> int:
    """The most of RAM at a time, in one process; on a CPU that is the card, too."""
    later = max((size for name, size in needs.ram_moments.items() if name != "loading"), default=0)
    on_card = needs.card if place.card is None else 0
    return sum(needs.ram.values()) + max(needs.ram_moments["loading"], later + on_card)


def check(needs: Needs, place: Place, output: str, here: int = 1, sharded: bool = False) -> None:
    """Raise TrainingError where it cannot fit. here: how many processes share this RAM.

    sharded: by FSDP, with which a card needs less than is computed, so that it stops nothing.
    """
    on_card, disk = needs.card + RESERVE, sum(needs.disk.values())
    by_card = [*needs.kept.items(), *needs.moments.items()]
    if place.card is not None and on_card > place.card and not sharded:
        raise TrainingError(
            f"The run needs {on_card / GB:.3g} GB on the card, of which {place.card / GB:.3g} are free, most of it for "
            f"{_largest(by_card)}: {_advice(needs)}."
        )
    ram = here * in_ram(needs, place)
    if ram > place.ram:
        of_ram, of_card = [*needs.ram.items(), *needs.ram_moments.items()], by_card if place.card is None else []
        largest = max([*of_ram, *of_card], key=itemgetter(1))
        advice = _advice(needs) if largest in of_card else _advice_of_ram(needs, largest[0])
        raise TrainingError(
            f"The run needs {ram / GB:.3g} GB of RAM, of which {place.ram / GB:.3g} are free, most of it for "
            f"{_named(largest)}: close other programs{advice and f', or {advice}'}."
        )
    if disk > place.disk:
        raise TrainingError(
            f"The run needs up to {disk / GB:.3g} GB of disk in {output}, where {place.disk / GB:.3g} are free, most "
            f"of it for {_largest(needs.disk.items())}: free disk space, choose another output, raise save.every, set "
            "save.keep_deltas or save.rank, or lower cache.endpoints or cache.prompts_gb."
        )


def _largest(sizes: Iterable[tuple[str, int]]) -> str:
    return _named(max(sizes, key=itemgetter(1)))


def _named(size: tuple[str, int]) -> str:
    return f"{size[0]} ({size[1] / GB:.3g} GB)"


def _lora(needs: Needs) -> str:
    return 'set student.method to "lora"' if needs.full else ""


def _advice_of_ram(needs: Needs, name: str) -> str:
    """What takes less of RAM in this part."""
    if name == "end points of a round":
        return "lower cache.endpoints, optimizer.batch_size or optimizer.accumulation"
    if name == "a delta or a state that is written" and not needs.full:
        return "lower student.rank"
    return _lora(needs)


def _advice(needs: Needs) -> str:
    """What takes less, by the moment that counts."""
    if needs.kept["prompts in memory"] > needs.card / 2:
        return "lower cache.prompts_memory_gb"
    moment = max(needs.moments, key=lambda name: needs.moments[name], default="")
    if "trajectories" in moment:
        return "lower cache.teacher_batch"
    if moment.startswith("activations"):
        less = (
            "lower optimizer.batch_size and raise optimizer.accumulation, set student.gradient_checkpointing, "
            'student.ema_on = "cpu" or another optimizer.kind'
        )
        return ", or ".join(filter(None, [less, _lora(needs)]))
    return "lower data.resolution or preview.prompts, or choose a smaller card's configuration of training/configs"


def on_this_machine(processes: int) -> int:
    """How many of the run's processes share this RAM, as the launcher says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes))


def cuda_or_cpu() -> torch.device:
    """The device of this process, as accelerate chooses it."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
