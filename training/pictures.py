"""Pictures with captions from webdataset's shards; pictures decoded, and what cannot be read of them."""

import glob
import io
import json
import math
import random
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import webdataset
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from perflow_core.training.curriculum import Purpose, generator

from .buckets import Buckets, Size
from .config import DataConfig
from .stopping import TrainingError

THREADS = 8
MOST_SHARDS = 100_000
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")
NAMED = 20  # files in one line for the user, and lines for files of a kind


class Picture(NamedTuple):
    """One that has not been decoded yet."""

    name: str
    read: Callable[[], bytes]
    caption: str
    others: tuple[str, ...] = ()  # captions that take turns with it
    repeats: int = 1  # how often an epoch has it
    path: Path | None = None  # in a folder


@cache
def endings() -> frozenset[str]:
    """Those that Pillow reads, such as ".png"."""
    Image.init()
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN)


def caption_of(value: Any) -> str:
    """A caption that is text; raises ValueError for another, which no text encoder or file takes."""
    if not isinstance(value, str):
        raise ValueError(f"the caption is {value!r}, expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the caption {value!r} has half a character, expected whole ones") from error
    return value


class ShardStream:
    """Samples of webdataset's shards without end, each process its own shards, from any place on.

    The order depends on the seed alone; place counts what was taken, pass by pass.
    """

    def __init__(self, config: DataConfig, seed: int, rank: int, processes: int):
        self.config, self.seed = config, seed
        shards = _shards(config.path)
        missing = [shard for shard in shards if ":" not in shard and not Path(shard).is_file()]
        if missing or not shards:
            raise TrainingError(f"data.path: the shard {missing[0] if missing else config.path} is not there.")
        if len(shards) < processes:
            raise TrainingError(f"{len(shards)} shards for {processes} processes, expected at least one for each.")
        self.shards = shards[rank::processes]
        self.epoch, self.taken = 0, 0
        self._samples: Iterator[Picture] | None = None
        self._telling_in: int | None = None  # the pass whose samples that are left out are named

    @property
    def place(self) -> str:
        return f"{self.epoch}:{self.taken}"

    @place.setter
    def place(self, text: str) -> None:
        if text and text != self.place:
            self.epoch, self.taken = (int(part) for part in text.split(":"))
            self._samples = None

    def __iter__(self) -> Iterator[Picture]:
        while True:
            if self._samples is None:
                self._samples = islice(self._pass(self.epoch), self.taken, None)
            for picture in self._samples:
                self.taken += 1
                yield picture
            if self.taken == 0:
                raise TrainingError(
                    f"data.path {self.config.path} holds no sample with a picture and a caption "
                    f"({self.config.caption}): choose other shards, or set data.caption to the ending that they use."
                )
            self.epoch, self.taken, self._samples = self.epoch + 1, 0, None

    def again(self, places: Collection[str]) -> Iterator[tuple[str, Picture]]:
        """The pictures after which `place` was one of these, with it, in the order of the stream."""
        wanted = sorted(tuple(int(part) for part in place.split(":")) for place in places)
        for epoch, of_pass in groupby(wanted, itemgetter(0)):
            numbers = [number for _, number in of_pass]
            for number, picture in enumerate(islice(self._pass(epoch), numbers[-1]), 1):
                if number in numbers:
                    yield f"{epoch}:{number}", picture

    def _pass(self, epoch: int) -> Iterator[Picture]:
        order = generator(self.seed, Purpose.SHARDS, epoch).permutation(len(self.shards))
        shards = [self.shards[i] for i in order]
        self._telling_in = epoch if self._telling_in is None else self._telling_in
        left_out = 0
        try:
            for sample in self._mixed(shards, epoch):
                picture = self._picture(sample)
                if isinstance(picture, Picture):
                    yield picture
                    continue
                left_out += 1
                if epoch == self._telling_in and (left_out <= NAMED or left_out.bit_count() == 1):
                    name = f"{sample['__url__']}/{sample['__key__']}"
                    text = f"Left out {name}, which has {picture}; {left_out} so far."
                    print(text, file=sys.stderr, flush=True)
        except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
            what, *_, shard = error.args if len(error.args) > 2 else (error, None)  # as webdataset adds it
            raise TrainingError(
                f"The shard {shard or self.config.path} cannot be read ({what}): it may be cut off, so fetch or make "
                "it again."
            ) from error

    def _mixed(self, shards: list[str], epoch: int) -> Iterator[dict[str, Any]]:
        """webdataset's samples, but of a file's name all before its last dot says to which one it belongs."""
        stage = webdataset.filters.pipelinefilter
        return iter(
            webdataset.DataPipeline(
                webdataset.SimpleShardList(shards),
                webdataset.cache.StreamingOpen(),
                stage(webdataset.tariterators.tar_file_expander)(),
                stage(webdataset.tariterators.group_by_keys)(keys=self._split),
                webdataset.filters.shuffle(self.config.shuffle, rng=random.Random(f"{self.seed} {epoch}")),
            )
        )

    def _split(self, name: str) -> tuple[str | None, str | None]:
        """A file's sample and ending; data.caption may have dots. Hidden files have none."""
        if name.rpartition("/")[2].startswith("."):
            return None, None
        of_caption = name.removesuffix(f".{self.config.caption}")
        key, _, ending = (of_caption, "", self.config.caption) if of_caption != name else name.rpartition(".")
        return (key, ending) if key and "/" not in ending else (None, None)

    def _picture(self, sample: dict[str, Any]) -> Picture | str:
        """Or what is missing; one whose caption is not valid cannot be read."""
        ending = next((ending for ending in sample if f".{ending}" in endings()), None)
        if ending is None:
            return "no picture that Pillow reads"
        name = f"{sample['__url__']}/{sample['__key__']}.{ending}"
        try:
            caption = self._caption(sample)
        except ValueError as error:
            return Picture(name, partial(_refuse, str(error)), "")
        return "no caption" if caption is None else Picture(name, partial(bytes, sample[ending]), caption)

    def _caption(self, sample: dict[str, Any]) -> str | None:
        """Raises ValueError."""
        for ending in (self.config.caption.lower(), "txt"):
            if ending in sample:
                return _utf_8(sample[ending]).strip()
        values = json.loads(_utf_8(sample["json"])) if "json" in sample else None
        caption = values.get(self.config.caption) if isinstance(values, dict) else None
        return None if caption is None else caption_of(caption)


def _shards(path: str) -> list[str]:
    """Those that webdataset reads, and of a pattern such as data/*.tar the files that it matches, by name.

    Raises TrainingError.
    """
    found: list[str] = []
    _check_braces(path)
    for shard in webdataset.shardlists.expand_urls(path):
        found += (sorted(glob.glob(shard)) if ":" not in shard and not Path(shard).exists() else []) or [shard]
    return found


def _check_braces(path: str) -> None:
    """Raises TrainingError for braces that cannot be expanded, or never end."""
    ranges = [(int(first), int(last)) for first, last in RANGE.findall(path)]
    count = math.prod(abs(last - first) + 1 for first, last in ranges)
    if count > MOST_SHARDS:  # before they are expanded, which would take all of the memory
        raise TrainingError(
            f"data.path {path} names {count} shards, expected at most {MOST_SHARDS}: correct the numbers in braces."
        )
    try:
        webdataset.shardlists.expand_urls(path)
    except ValueError as error:
        raise TrainingError(
            f"data.path {path} cannot be used ({error}), expected addresses such as shards-{{00..63}}.tar: correct it."
        ) from error


def _utf_8(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the caption is not UTF-8: {error}") from error


def _refuse(why: str) -> bytes:
    raise ValueError(why)


def decoded(
    pictures: Iterable[Picture], buckets: Buckets, skipped: list[str]
) -> Iterator[tuple[Picture, Tensor | None]]:
    """Each picture with its pixels [3, height, width] in -1..1, in order; None, and its name added to `skipped`, where
    it cannot be read.
    """

    def decode(picture: Picture) -> Tensor | Exception:
        try:
            return pixels(picture.read(), buckets)
        except Exception as error:  # Pillow's readers raise any kind, of one picture of many
            return error

    remaining = iter(pictures)
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(remaining, THREADS)):
            for picture, found in zip(batch, pool.map(decode, batch), strict=True):
                if isinstance(found, Tensor):
                    yield picture, found
                    continue
                skip(picture, found, skipped)
                yield picture, None


def skip(picture: Picture, error: Exception, skipped: list[str]) -> None:
    """Tell the user that it cannot be read."""
    skipped.append(picture.name)
    why = str(error) or type(error).__name__
    text = f"Skipped {picture.name}, which cannot be read ({why}); {len(skipped)} so far."
    print(text, file=sys.stderr, flush=True)


def pixels(data: bytes, buckets: Buckets) -> Tensor:
    """The largest centred part of a picture that has its bucket's shape, resized to it; [3, height, width] in -1..1.

    White lies behind it. Raises whatever Pillow does.
    """
    with _opened(data) as image:
        upright = _on_white(_eight_bits(ImageOps.exif_transpose(image)))
        fitted = ImageOps.fit(upright, buckets.nearest(*upright.size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


def bucket(data: bytes, buckets: Buckets) -> Size:
    """That of a picture, which is not decoded for it. Raises whatever Pillow does."""
    with _opened(data) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return buckets.nearest(*((height, width) if turned else (width, height)))


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ValueError("it is no picture that Pillow reads") from error


def _on_white(image: Image.Image) -> Image.Image:
    """In RGB."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    above = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, which Pillow would clip at 255; others as they are. Raises ValueError for numbers in floats."""
    if image.mode == "F":
        raise ValueError("its numbers are floats, whose white nothing tells: save it in 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
