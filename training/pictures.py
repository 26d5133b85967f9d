"""Pictures with captions, from a folder or from webdataset's shards, and what cannot be read of them."""

import io
import json
import random
import sys
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


def folder_pictures(config: DataConfig) -> list[Picture]:
    """The pictures of an imagefolder with metadata.jsonl, or with a .txt beside each. Raises TrainingError."""
    import datasets

    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise TrainingError(f"data.path {folder} is no folder: give one with pictures and captions.")
    try:
        table = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", drop_labels=True)
    except (
        datasets.exceptions.DatasetNotFoundError,
        datasets.data_files.EmptyDatasetError,
        FileNotFoundError,
    ) as error:
        raise TrainingError(
            f"data.path {folder} holds no pictures: put some there, or choose another folder."
        ) from error
    table = table.cast_column("image", datasets.Image(decode=False))
    pictures = []
    for row in table:
        path = Path(row["image"]["path"])
        caption = row.get(config.caption)
        if caption is None:
            beside = path.with_suffix(".txt")
            caption = beside.read_text(encoding="utf-8").strip() if beside.is_file() else None
        if caption is not None:
            pictures.append(Picture(str(path.relative_to(folder)), path.read_bytes, caption))
    if not pictures:
        raise TrainingError(
            f'data.path {folder} has {len(table)} pictures and no captions, expected a metadata.jsonl with "file_name" '
            f'and "{config.caption}", or a .txt beside each picture: write them.'
        )
    return pictures


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
        for sample in mixed:
            ending = next((ending for ending in ENDINGS.split(";") if ending in sample), None)
            caption = self._caption(sample)
            if ending and caption is not None:
                data = sample[ending]
                yield Picture(f"{sample['__url__']}/{sample['__key__']}.{ending}", partial(bytes, data), caption)

    def _caption(self, sample: dict[str, Any]) -> str | None:
        for ending in (self.config.caption, "txt"):
            if ending in sample:
                return sample[ending].decode("utf-8").strip()
        return json.loads(sample["json"]).get(self.config.caption) if "json" in sample else None


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
        upright = ImageOps.exif_transpose(image).convert("RGB")
        square = ImageOps.fit(upright, (resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
