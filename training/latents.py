"""x0 for the teacher: latents with captions, from files, from pictures or from the teacher itself.

Of a source, `place` says how far it has been read, if it is read in order, and take(numbers) gives x0 [B, 4, h, w] and
a caption for each; numbers counts the examples of the whole run. With aspect buckets, `buckets.together` of them from a
multiple of that on have one size. `facts` tell its files from others (`made_with`).
"""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor

from perflow_core.training.curriculum import Purpose, generator, normal

from .buckets import Buckets, Epochs, Size, together, used
from .config import Config, DataConfig
from .made_with import Facts, digest, of_file
from .pictures import Picture, ShardStream, bucket, caption_of, decoded, skip
from .prepared_latents import Share, prepare
from .prompts import PromptStore
from .stopping import TrainingError
from .teacher import Teacher


class LatentFile(NamedTuple):
    """What an open one has of a size. tensors: "latents" and perhaps "mirrored", each [N, 4, h, w], by what they are;
    of N rows captions and repeats.
    """

    path: Path
    shape: tuple[int, ...]  # of a latent
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
    list, "repeats": N numbers}. A tensor "mirrored" has the latents of the mirrored pictures. Latents of several
    sizes are in files of their own, or in tensors "latents SIZE" in the order of these names. Files are opened when
    they are first used: other processes may still be writing them before.
    """

    def __init__(self, path: Path, seed: int, held_out: int = 0, together: int = 1):
        """held_out: so many latents are in `held`, and take() never gives them; together: so many are of one size."""
        self.path, self.seed, self.held_out, self.together, self.place = path, seed, held_out, together, ""

    @cached_property
    def files(self) -> list[LatentFile]:
        """Raises TrainingError."""
        if not self._paths:
            raise TrainingError(
                f"data.path {self.path} has no .safetensors file with latents: give such a file or a folder."
            )
        return [file for path in self._paths for file in _open(path)]

    @cached_property
    def _paths(self) -> list[Path]:
        return [self.path] if self.path.is_file() else sorted(self.path.glob("*.safetensors"))

    @cached_property
    def facts(self) -> Facts:
        """Raises TrainingError."""
        count = sum(len(file.captions) for file in self.files)
        return {
            "the latents": f"{count} of them, {digest(of_file(path) for path in self._paths)}",
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
    def held(self) -> list[tuple[Tensor, list[str]]]:
        """x0 and captions of the latents that are held out, for each size."""
        by_shape = sorted(self._split[1], key=self._shape)
        return [self._read(list(places)) for _, places in groupby(by_shape, self._shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first."""
        return self._shape(self.rows[0])

    def _shape(self, place: Place) -> tuple[int, ...]:
        return self.files[place.file].shape

    @cached_property
    def _epochs(self) -> Epochs:
        return Epochs([self._shape(row) for row in self.rows], self.together, self.seed)

    def take(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        return self._read([self._place(number) for number in numbers])

    def _read(self, places: Sequence[Place]) -> tuple[Tensor, list[str]]:
        """Captions that take turns do so from use to use."""
        x0 = torch.cat([self.files[at.file].tensors[at.name][at.row : at.row + 1] for at in places]).float()
        captions = [(self.files[at.file].captions[at.row], at.use) for at in places]
        return x0, [some[use % len(some)] for some, use in captions]

    def _place(self, number: int) -> Place:
        """use: since the run began."""
        epoch, i = self._epochs[number]
        place = self.rows[i]
        return place._replace(use=epoch * place.uses + place.use)


def _open(path: Path) -> list[LatentFile]:
    """What it has of each size. Raises TrainingError."""
    beside = path.with_suffix(".json")
    try:
        file: Any = safetensors.safe_open(str(path), framework="pt")
        names = {*file.keys()}
        sizes = sorted(name.removeprefix("latents") for name in names if name.startswith("latents ")) or [""]
        found = [
            {
                name: file.get_slice(name + size)
                for name in ("latents", "mirrored")
                if name + size in {*names, "latents"}
            }
            for size in sizes
        ]
        values = json.loads(beside.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{path} cannot be used ({error}), expected a tensor called latents in it and a list of captions in "
            f"{beside.name} beside it: make both again."
        ) from error
    of_sizes: list[tuple[int, ...]] = []
    for tensors in found:
        shapes = [tuple(part.get_shape()) for part in tensors.values()]
        if not shapes[0] or len(set(shapes)) > 1:
            raise TrainingError(f"{path} holds tensors of shapes {shapes}, expected [N, ...] of each: make it again.")
        of_sizes.append(shapes[0])
    counts = [count for count, *_ in of_sizes]
    captions, repeats = _captions_in(beside, values)
    if (len(captions), len(repeats)) != (sum(counts),) * 2:
        raise TrainingError(
            f"{path} holds {sum(counts)} latents and {beside.name} {len(captions)} captions, expected one for each: "
            "make both again."
        )
    return [
        LatentFile(path, shape[1:], tensors, captions[end - shape[0] : end], repeats[end - shape[0] : end])
        for tensors, shape, end in zip(found, of_sizes, accumulate(counts), strict=True)
    ]


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


class Waiting(NamedTuple):
    """A picture that has been read, and the stream's place after it."""

    place: str
    picture: Picture


class PictureStream:
    """Latents of the pictures in shards, encoded as they come; those of one take() have one size.

    A picture waits in its bucket until the bucket has as many as are taken. `place` names those that wait, too.
    """

    def __init__(self, teacher: Teacher, config: Config, rank: int, processes: int):
        self.config, self.seed, self.teacher = config.data, config.seed, teacher
        self.stream = ShardStream(config.data, config.seed, rank, processes)
        self.buckets = Buckets.of(config.data)
        self.waiting: dict[Size, list[Waiting]] = {}
        self._places_of_waiting: list[str] = []  # that are to be read again
        self.skipped: list[str] = []
        self.shape = teacher.latent_shape
        shards = self.stream.shards
        here = (Path(shard) for shard in shards)
        self.facts: Facts = {"the shards": digest([shards, *(of_file(path) for path in here if path.is_file())])}

    @property
    def place(self) -> str:
        """How far the stream was read, and after spaces the places of the pictures that wait."""
        waiting = [one.place for some in self.waiting.values() for one in some]
        return " ".join([self.stream.place, *sorted(self._places_of_waiting + waiting)])

    @place.setter
    def place(self, text: str) -> None:
        if text and text != self.place:
            self.stream.place, *self._places_of_waiting = text.split(" ")
            self.waiting = {}

    def take(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        found = self._of_one_size(len(numbers))
        pixels = [part for _, part in found]
        shape = self.teacher.latent_shape_at(*pixels[0].shape[-2:])
        noise = normal(shape, numbers, self.seed, Purpose.POSTERIOR)
        if self.config.flip:
            pixels = [mirrored_by_chance(part, self.seed, i) for part, i in zip(pixels, numbers, strict=True)]
        x0 = self.teacher.encode_pictures(torch.stack(pixels), noise)
        return x0.cpu(), [picture.caption for picture, _ in found]

    def _of_one_size(self, count: int) -> list[tuple[Picture, Tensor]]:
        """The pictures of the first bucket that has so many, with their pixels."""
        good: dict[Size, list[tuple[Picture, Tensor]]] = {}
        unread = 0
        for size, there in self._filling():
            if len(there) < count:
                continue
            done = good.setdefault(size, [])
            new = [one.picture for one in there[len(done) : count]]
            read = list(decoded(new, self.buckets, self.skipped))
            done += [(picture, pixels) for picture, pixels in read if pixels is not None]
            broken = {id(picture) for picture, pixels in read if pixels is None}
            there[:] = [one for one in there if id(one.picture) not in broken]
            if len(done) == count:
                del there[:count]
                return done
            unread = 0 if done else unread + len(new)
            if unread > 1000:
                raise TrainingError(f"None of {unread} pictures of data.path {self.config.path} can be read.")
        raise AssertionError("a stream has no end")

    def _filling(self) -> Iterator[tuple[Size, list[Waiting]]]:
        """The buckets, as pictures come into them; first all with what waits there already."""
        places, self._places_of_waiting = self._places_of_waiting, []
        for place, picture in self.stream.again(places):
            self._put(Waiting(place, picture))
        yield from [*self.waiting.items()]
        for picture in self.stream:
            if size := self._put(Waiting(self.stream.place, picture)):
                yield size, self.waiting[size]

    def _put(self, one: Waiting) -> Size | None:
        """Into its bucket, which is returned; None for one that cannot be read."""
        size = self.buckets.sizes[0]
        if len(self.buckets.sizes) > 1:
            try:
                size = bucket(one.picture.read(), self.buckets)
            except Exception as error:  # as in `decoded`
                skip(one.picture, error, self.skipped)
                return None
        self.waiting.setdefault(size, []).append(one)
        return size


def mirrored_by_chance(pixels: Tensor, seed: int, number: int) -> Tensor:
    """A picture [3, H, W], or in half of the numbers its mirror image."""
    return pixels.flip(-1) if generator(seed, Purpose.MIRROR, number).random() < 0.5 else pixels


def _check_shapes(files: LatentFiles, data: DataConfig, teacher: Teacher) -> None:
    """All are of the resolution's shape or, with buckets, of a bucket's. Raises TrainingError."""
    expected, leading = teacher.latent_shape, files.shape[:-2]
    h, w = expected[-2:]
    step = data.bucket_step * h // data.resolution
    for file in files.files:
        if not file.captions:
            continue
        shape, sides = file.shape, file.shape[-2:]
        alike = len(shape) == len(expected) and shape[0] == expected[0] and shape[:-2] == leading
        fits = not any(side % step for side in sides) and math.prod(sides) <= h * w if data.buckets else sides == (h, w)
        if not alike or not fits:
            frames = ", of any number of frames but the same in all files," if len(expected) == 4 else ""
            of_buckets = (
                f", or of other sides that are multiples of {step} with at most {h * w} places (data.bucket_step "
                f"{data.bucket_step})"
                if data.buckets
                else ""
            )
            raise TrainingError(
                f"{file.path} holds latents of shape {shape}, expected {expected}{frames} as {teacher.name} has them "
                f"at data.resolution {data.resolution}{of_buckets}: set data.resolution to theirs, or give latents of "
                "that model's VAE."
            )


def shape_of(size: Size, source: LatentFiles | PictureStream, teacher: Teacher) -> tuple[int, ...]:
    """Of a source's latents of pictures of a size."""
    return *source.shape[:-2], *teacher.latent_shape_at(size.height, size.width)[-2:]


def source(
    config: Config, facts: Facts, teacher: Teacher, prompts: PromptStore, share: Share
) -> LatentFiles | PictureStream:
    """What the configuration names; pictures and prompts become files of latents first. facts: the run's.

    Several processes share the work, so they have to wait for each other before the latents are used.
    """
    data, held_out, of_one_size = config.data, config.validation.held_out, together(config)
    if used(data) and data.bucket_step % teacher.side_step:
        raise TrainingError(
            f"data.bucket_step is {data.bucket_step}, expected a multiple of {teacher.side_step} for {teacher.name}: "
            "choose one."
        )
    if data.kind == "latents":
        files = LatentFiles(Path(data.path), config.seed, held_out, of_one_size)
        _check_shapes(files, data, teacher)
        return files
    if data.kind == "webdataset":
        return PictureStream(teacher, config, share.rank, share.processes)
    folder = Path(config.output) / "latents"
    prepare(config, facts, teacher, prompts, folder, share)
    return LatentFiles(folder, config.seed, held_out, of_one_size)
