"""Pictures with captions, from a folder or from webdataset's shards, and what cannot be read of them."""

import glob
import io
import json
import os
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
NAMED = 20  # files in one line for the user


class Picture(NamedTuple):
    """One that has not been decoded yet."""

    name: str
    read: Callable[[], bytes]
    caption: str


def folder_pictures(config: DataConfig, say: Callable[[str], None]) -> list[Picture]:
    """Every picture with a caption in a folder and those below it, in the order of their names.

    The caption is in a table, such as metadata.jsonl, or in a .txt beside the picture. `say` tells the user which
    pictures have none, and which rows of a table no picture. Raises TrainingError.
    """
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        raise TrainingError(f"data.path {folder} is no folder: give one with pictures and captions.")
    root = Path(os.path.abspath(folder))
    paths = _pictures_below(root)
    if not paths:
        raise TrainingError(f"data.path {folder} holds no pictures: put some there, or choose another folder.")
    table = _captions_in_tables(root, config.caption)
    captions = {path: table[path] if path in table else _caption_beside(path) for path in paths}
    pictures = [
        Picture(str(path.relative_to(root)), path.read_bytes, caption)
        for path, caption in captions.items()
        if caption is not None
    ]
    if not pictures:
        raise TrainingError(
            f'data.path {folder} has {len(paths)} pictures and no captions, expected a metadata.jsonl with "file_name" '
            f'and "{config.caption}", or a .txt beside each picture: write them.'
        )
    without = [path for path, caption in captions.items() if caption is None]
    if without:
        say(
            f"Pictures without a caption, which are left out: {len(without)} of {len(paths)} ({_named(without, root)})."
        )
    missing = [path for path in table if path not in captions]
    if missing:
        say(f"Captions without a picture: {len(missing)} ({_named(missing, root)}).")
    return pictures


def _pictures_below(folder: Path) -> list[Path]:
    """Hidden files are none: systems put small copies and notes of their own there."""
    Image.init()
    endings = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    found = (path for path in folder.rglob("*") if path.suffix.lower() in endings and path.is_file())
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def _captions_in_tables(folder: Path, column: str) -> dict[Path, str]:
    """The captions by picture of all metadata.jsonl, .csv and .parquet, as datasets' imagefolder has them."""
    tables = sorted(path for path in folder.rglob("metadata.*") if path.suffix in (".jsonl", ".csv", ".parquet"))
    if not tables:
        return {}
    import datasets  # takes seconds

    # Only the tables, and as one split: given the folder, it would use those pictures whose names suit a split. As a
    # stream, for it would keep a copy and not see every change.
    names = {"train": [glob.escape(str(path)) for path in tables]}
    try:
        rows = datasets.load_dataset("imagefolder", data_files=names, split="train", streaming=True)
        captions = {
            Path(row["image"]["path"]): row.get(column)
            for row in rows.cast_column("image", datasets.Image(decode=False))
        }
    except (datasets.exceptions.DatasetsError, ValueError, TypeError, LookupError, OSError) as error:
        raise TrainingError(
            f"{', '.join(map(str, tables))} cannot be read ({' '.join(str(error).split())}), expected a "
            f'"file_name" and a "{column}" in every row: correct it there.'
        ) from error
    return {path: str(caption) for path, caption in captions.items() if caption is not None}


def _caption_beside(path: Path) -> str | None:
    """The text in the .txt of the same name. Raises TrainingError where it is not UTF-8."""
    beside = path.with_suffix(".txt")
    try:
        return beside.read_text(encoding="utf-8-sig").strip() if beside.is_file() else None
    except ValueError as error:
        raise TrainingError(f"The caption {beside} is not UTF-8 ({error}): save it as UTF-8.") from error


def _named(paths: list[Path], folder: Path) -> str:
    names = [str(path.relative_to(folder)) for path in paths[:NAMED]]
    return ", ".join(names) + (f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "")


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
