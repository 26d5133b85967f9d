"""x0 for the teacher: latents with captions, from files, from pictures or from the teacher itself.

Of a source, `place` says how far it has been read, if it is read in order, and take(numbers) gives x0 [B, 4, h, w] and
a caption for each; numbers counts the examples of the whole run. `facts` tell its files from others (`made_with`).
"""

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from torch import Tensor

from perflow_core.training.curriculum import Purpose, generator, normal

from .config import Config
from .made_with import Facts, digest, of_file
from .pictures import ShardStream, caption_of, decoded
from .prepared_latents import Share, prepare
from .prompts import PromptStore
from .stopping import TrainingError
from .teacher import Teacher


class LatentFile(NamedTuple):
    """An open one. tensors: "latents" and perhaps "mirrored", each [N, 4, h, w]; of N rows captions and repeats."""

    tensors: dict[str, Any]
    captions: list[list[str]]
    repeats: list[int]


class Place(NamedTuple):
    """A latent: its file, its row there, the tensor, and which of that one's uses in an epoch this is, of how many."""

    file: int
    row: int
    name: str = "latents"
    use: int = 0
    uses: int = 1


class LatentFiles:
    """Latents in safetensors files, each with a list of captions beside it; every epoch in an order of its own.

    A file NAME.safetensors holds "latents" [N, 4, h, w] in the model's scale, and NAME.json its N captions; a list in
    the place of one has captions that take turns. Where an epoch has rows several times, it holds {"captions": the
    list, "repeats": N numbers}. A tensor "mirrored" has the latents of the mirrored pictures. Files are opened when
    they are first used: other processes may still be writing them before.
    """

    def __init__(self, path: Path, seed: int, held_out: int = 0):
        """held_out: so many latents are in `held`, and take() never gives them."""
        self.path, self.seed, self.held_out, self.place = path, seed, held_out, ""

    @cached_property
    def files(self) -> list[LatentFile]:
        """Raises TrainingError."""
        if not self._paths:
            raise TrainingError(
                f"data.path {self.path} has no .safetensors file with latents: give such a file or a folder."
            )
        return [_open(path) for path in self._paths]

    @cached_property
    def _paths(self) -> list[Path]:
        return [self.path] if self.path.is_file() else sorted(self.path.glob("*.safetensors"))

    @cached_property
    def facts(self) -> Facts:
        """Raises TrainingError."""
        return {
            "the latents": digest(of_file(path) for path in self._paths),
            "the captions": digest(file.captions for file in self.files),
            "the repeats": digest(file.repeats for file in self.files),
        }

    @property
    def rows(self) -> list[Place]:
        """The examples of an epoch. Raises TrainingError."""
        return self._split[0]

    @cached_property
    def _split(self) -> tuple[list[Place], list[Place]]:
        """The examples of an epoch, and those that are held out, mirrored ones with the others."""
        rows = [Place(i, row) for i, file in enumerate(self.files) for row in range(len(file.captions))]
        if not rows:
            raise TrainingError(
                f"{self.path} holds no latents, expected at least one: none of the pictures could be read."
            )
        if self.held_out >= len(rows):
            raise TrainingError(
                f"validation.held_out is {self.held_out} of {len(rows)} examples, expected fewer than there are: lower "
                "it or give more."
            )
        order = generator(self.seed, Purpose.HELD_OUT).permutation(len(rows)) if self.held_out else ()
        held = {int(row) for row in order[: self.held_out]}
        trained = [row for i, row in enumerate(rows) if i not in held]
        return [use for row in trained for use in self._uses(row)], [rows[i] for i in sorted(held)]

    def _uses(self, place: Place) -> list[Place]:
        """In an epoch."""
        file = self.files[place.file]
        uses = file.repeats[place.row]
        return [place._replace(name=name, use=use, uses=uses) for use in range(uses) for name in file.tensors]

    @property
    def held(self) -> tuple[Tensor, list[str]]:
        """x0 and captions of the latents that are held out."""
        return self._read(self._split[1])

    @property
    def shape(self) -> tuple[int, ...]:
        return next(iter(self.shapes.values()))

    @property
    def shapes(self) -> dict[Path, tuple[int, ...]]:
        """Of the latents in each file that holds some. Raises TrainingError."""
        files = zip(self._paths, self.files, strict=True) if self.rows else ()
        return {path: tuple(file.tensors["latents"].get_shape()[1:]) for path, file in files if file.captions}

    def take(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        return self._read([self._place(number) for number in numbers])

    def _read(self, places: Sequence[Place]) -> tuple[Tensor, list[str]]:
        """Captions that take turns do so from use to use."""
        x0 = torch.cat([self.files[at.file].tensors[at.name][at.row : at.row + 1] for at in places]).float()
        captions = [(self.files[at.file].captions[at.row], at.use) for at in places]
        return x0, [some[use % len(some)] for some, use in captions]

    def _place(self, number: int) -> Place:
        """use: since the run began."""
        epoch, i = divmod(number, len(self.rows))
        place = self.rows[int(_epoch_order(len(self.rows), self.seed, epoch)[i])]
        return place._replace(use=epoch * place.uses + place.use)


@lru_cache(maxsize=1)
def _epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    return generator(seed, Purpose.EPOCH, epoch).permutation(length)


def _open(path: Path) -> LatentFile:
    beside = path.with_suffix(".json")
    try:
        file: Any = safetensors.safe_open(str(path), framework="pt")
        tensors = {name: file.get_slice(name) for name in ("latents", *({"mirrored"} & {*file.keys()}))}
        values = json.loads(beside.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{path} cannot be used ({error}), expected a tensor called latents in it and a list of captions in "
            f"{beside.name} beside it: make both again."
        ) from error
    shapes = [tuple(part.get_shape()) for part in tensors.values()]
    if not shapes[0] or len(set(shapes)) > 1:
        raise TrainingError(f"{path} holds tensors of shapes {shapes}, expected [N, ...] of each: make it again.")
    captions, repeats = _captions_in(beside, values)
    if (len(captions), len(repeats)) != (shapes[0][0],) * 2:
        raise TrainingError(
            f"{path} holds {shapes[0][0]} latents and {beside.name} {len(captions)} captions, expected one for each: "
            "make both again."
        )
    return LatentFile(tensors, captions, repeats)


def _captions_in(path: Path, values: Any) -> tuple[list[list[str]], list[int]]:
    """The captions of each latent, and how often an epoch has it. Raises TrainingError."""
    captions = values.get("captions") if isinstance(values, dict) else values
    found: list[list[str]] = []
    try:
        if not isinstance(captions, list):
            raise ValueError("there is no list of captions")
        for some in captions:
            found.append(_texts(some))
        repeats = values.get("repeats") if isinstance(values, dict) else [1] * len(captions)
        if not isinstance(repeats, list) or not all(type(count) is int and count > 0 for count in repeats):
            raise ValueError("repeats is no list of whole numbers from 1")
    except ValueError as error:
        place = f" after caption {len(found)}" if found else ""
        raise TrainingError(
            f"{path} cannot be used{place} ({error}), expected a list of captions that are text: correct it."
        ) from error
    return found, repeats


def _texts(value: Any) -> list[str]:
    """The captions of a latent, which take turns. Raises ValueError."""
    if value == []:
        raise ValueError("the list in its place is empty")
    return [caption_of(text) for text in (value if isinstance(value, list) else [value])]


class PictureStream(ShardStream):
    """Latents of a stream's pictures, encoded as they come."""

    def __init__(self, teacher: Teacher, config: Config, rank: int, processes: int):
        super().__init__(config.data, config.seed, rank, processes)
        self.teacher = teacher
        self.skipped: list[str] = []
        example = teacher.encode_pictures(torch.zeros(1, 3, config.data.resolution, config.data.resolution))
        self.shape = tuple(example.shape[1:])
        here = (Path(shard) for shard in self.shards)
        self.facts: Facts = {"the shards": digest([self.shards, *(of_file(path) for path in here if path.is_file())])}

    def take(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        found: list[tuple[str, Tensor]] = []
        unread = 0
        while len(found) < len(numbers):
            wanted = list(islice(self, len(numbers) - len(found)))
            read = decoded(wanted, self.config.resolution, self.skipped)
            found += [(picture.caption, pixels) for picture, pixels in read if pixels is not None]
            unread = 0 if found else unread + len(wanted)
            if unread > 1000:
                raise TrainingError(f"None of {unread} pictures of data.path {self.config.path} can be read.")
        noise = normal(self.shape, numbers, self.seed, Purpose.POSTERIOR)
        pixels = [part for _, part in found]
        if self.config.flip:
            pixels = [mirrored_by_chance(part, self.seed, i) for part, i in zip(pixels, numbers, strict=True)]
        x0 = self.teacher.encode_pictures(torch.stack(pixels), noise)
        return x0.cpu(), [caption for caption, _ in found]


def mirrored_by_chance(pixels: Tensor, seed: int, number: int) -> Tensor:
    """A picture [3, H, W], or in half of the numbers its mirror image."""
    return pixels.flip(-1) if generator(seed, Purpose.MIRROR, number).random() < 0.5 else pixels


def _check_shapes(files: LatentFiles, resolution: int, teacher: Teacher) -> None:
    """All of one shape, and of the resolution, which SDXL and flow models are told. Raises TrainingError."""
    expected = teacher.latent_shape
    for path, shape in files.shapes.items():
        alike = shape == files.shape and len(shape) == len(expected)
        if not alike or (shape[0], *shape[-2:]) != (expected[0], *expected[-2:]):
            frames = ", of any number of frames but the same in all files," if len(expected) == 4 else ""
            raise TrainingError(
                f"{path} holds latents of shape {shape}, expected {expected}{frames} as {teacher.name} has them at "
                f"data.resolution {resolution}: set data.resolution to theirs, or give latents of that model's VAE."
            )


def source(
    config: Config, facts: Facts, teacher: Teacher, prompts: PromptStore, share: Share
) -> LatentFiles | PictureStream:
    """What the configuration names; pictures and prompts become files of latents first. facts: the run's.

    Several processes share the work, so they have to wait for each other before the latents are used.
    """
    data = config.data
    held_out = config.validation.held_out
    if data.kind == "latents":
        files = LatentFiles(Path(data.path), config.seed, held_out)
        _check_shapes(files, data.resolution, teacher)
        return files
    if data.kind == "webdataset":
        return PictureStream(teacher, config, share.rank, share.processes)
    folder = Path(config.output) / "latents"
    prepare(config, facts, teacher, prompts, folder, share)
    return LatentFiles(folder, config.seed, held_out)
