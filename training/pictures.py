"""Pictures with captions from webdataset's shards; pictures decoded, and what cannot be read of them."""

import io
import json
import random
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import webdataset
from PIL import Image, ImageOps
from torch import Tensor

from perflow_core.training.curriculum import Purpose, generator

from .config import DataConfig
from .stopping import TrainingError

ENDINGS = "jpg;jpeg;png;webp"
THREADS = 8


class Picture(NamedTuple):
    """One that has not been decoded yet."""

    name: str
    read: Callable[[], bytes]
    caption: str
    others: tuple[str, ...] = ()  # captions that take turns with it
    repeats: int = 1  # how often an epoch has it
    path: Path | None = None  # in a folder


class ShardStream:
    """Samples of webdataset's shards without end, each process its own shards, from any place on.

    The order depends on the seed alone; place counts what was taken, pass by pass.
    """

    def __init__(self, config: DataConfig, seed: int, rank: int, processes: int):
        self.config, self.seed = config, seed
        shards = list(webdataset.shardlists.expand_urls(config.path))
        missing = [shard for shard in shards if "://" not in shard and ":" not in shard and not Path(shard).is_file()]
        if missing or not shards:
            raise TrainingError(f"data.path: the shard {missing[0] if missing else config.path} is not there.")
        if len(shards) < processes:
            raise TrainingError(f"{len(shards)} shards for {processes} processes, expected at least one for each.")
        self.shards = shards[rank::processes]
        self.epoch, self.taken = 0, 0
        self._samples: Iterator[Picture] | None = None

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
                    f"data.path {self.config.path} holds no sample with a picture ({ENDINGS}) and a caption "
                    f"({self.config.caption}): choose other shards, or set data.caption to the ending that they use."
                )
            self.epoch, self.taken, self._samples = self.epoch + 1, 0, None

    def _pass(self, epoch: int) -> Iterator[Picture]:
        order = generator(self.seed, Purpose.SHARDS, epoch).permutation(len(self.shards))
        shards = [self.shards[i] for i in order]
        samples = webdataset.WebDataset(shards, shardshuffle=False, nodesplitter=None, empty_check=False)
        mixed = samples.shuffle(self.config.shuffle, rng=random.Random(f"{self.seed} {epoch}"))
        try:
            for sample in mixed:
                ending = next((ending for ending in ENDINGS.split(";") if ending in sample), None)
                if ending and (picture := self._picture(sample, ending)):
                    yield picture
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            what, *_, shard = error.args if len(error.args) > 2 else (error, self.config.path)  # as webdataset adds it
            raise TrainingError(
                f"The shard {shard} cannot be read ({what}): it may be cut off, so fetch or make it again."
            ) from error

    def _picture(self, sample: dict[str, Any], ending: str) -> Picture | None:
        """None without a caption; one whose caption is not valid cannot be read."""
        name = f"{sample['__url__']}/{sample['__key__']}.{ending}"
        try:
            caption = self._caption(sample)
        except ValueError as error:
            return Picture(name, partial(_refuse, f"its caption: {error}"), "")
        return None if caption is None else Picture(name, partial(bytes, sample[ending]), caption)

    def _caption(self, sample: dict[str, Any]) -> str | None:
        """Raises ValueError."""
        for ending in (self.config.caption, "txt"):
            if ending in sample:
                return sample[ending].decode("utf-8-sig").strip()
        values = json.loads(sample["json"]) if "json" in sample else None
        caption = values.get(self.config.caption) if isinstance(values, dict) else None
        return None if caption is None else str(caption)


def _refuse(why: str) -> bytes:
    raise ValueError(why)


def decoded(
    pictures: Iterable[Picture], resolution: int, skipped: list[str]
) -> Iterator[tuple[Picture, Tensor | None]]:
    """Each picture with its pixels [3, resolution, resolution] in -1..1, in order; None, and its name added to
    `skipped`, where it cannot be read.
    """

    def decode(picture: Picture) -> Tensor | Exception:
        try:
            return pixels(picture.read(), resolution)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return error

    remaining = iter(pictures)
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(remaining, THREADS)):
            for picture, found in zip(batch, pool.map(decode, batch), strict=True):
                if isinstance(found, Tensor):
                    yield picture, found
                    continue
                skipped.append(picture.name)
                text = f"Skipped {picture.name}, which cannot be read ({found}); {len(skipped)} so far."
                print(text, file=sys.stderr, flush=True)
                yield picture, None


def pixels(data: bytes, resolution: int) -> Tensor:
    """The largest centred square of a picture, resized; [3, resolution, resolution] in -1..1."""
    with Image.open(io.BytesIO(data)) as image:
        upright = _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
        square = ImageOps.fit(upright, (resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, which Pillow would clip at 255; others as they are."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
