"""Pictures with captions in folders: plain ones, kohya's, and those that SimpleTuner's multidatabackend.json names."""

import csv
import glob
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .config import DataConfig
from .pictures import NAMED, Picture, caption_of, endings
from .stopping import TrainingError

# Endings of pictures that Pillow may not read: of phones and cameras, and drawings of lines.
OF_PICTURES = {
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".webp", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
    ".raf", ".pef", ".exr", ".xcf",
}  # fmt: skip
CAPTIONS_BESIDE = (".txt", ".caption")  # the first one that is there
KOHYA = re.compile(r"(\d+)_(.*)", re.DOTALL)  # what a subfolder is called: how often its pictures are seen, and of what

OF_SIMPLETUNER = {  # the keys of a data set that are read, and those of its own caches
    "id", "type", "dataset_type", "disabled", "disable", "instance_data_dir", "caption_strategy", "instance_prompt",
    "prepend_instance_prompt", "only_instance_prompt", "disable_multiline_split", "repeats",
    "cache_dir_vae", "metadata_backend", "text_embeds", "image_embeds",
}  # fmt: skip


class Group(NamedTuple):
    """Pictures that are read alike. captions: one or more that take turns, or none; repeats: uses in an epoch."""

    root: Path
    paths: list[Path]
    captions: Callable[[Path], list[str]]
    repeats: Callable[[Path], int]


def folder_pictures(config: DataConfig, say: Callable[[str], None]) -> list[Picture]:
    """Every picture with a caption in data.path, of kind "folder", "kohya" or "simpletuner", in order.

    `say` tells the user which pictures have none, and what else is there and not used. Raises TrainingError.
    """
    path = Path(os.path.abspath(config.path))
    groups = GROUPS[config.kind](config, path, say)
    _tell_of_others(path, [path] if path.is_dir() else [group.root for group in groups], say)
    found = [(file, group.captions(file), group.repeats(file)) for group in groups for file in group.paths]
    if not found:
        raise TrainingError(f"data.path {path} holds no pictures: put some there, or choose another folder.")
    pictures = [
        Picture(_name(file, path), file.read_bytes, captions[0], tuple(captions[1:]), repeats, file)
        for file, captions, repeats in found
        if captions
    ]
    if not pictures:
        raise TrainingError(
            f"data.path {path} has {len(found)} {'picture' if len(found) == 1 else 'pictures'} and no captions, "
            f'expected a metadata.jsonl with "file_name" and "{config.caption}", or a .txt beside each picture: write '
            "them."
        )
    without = [file for file, captions, _ in found if not captions]
    if without:
        say(
            f"Pictures without a caption, which are left out: {len(without)} of {len(found)} ({_named(without, path)})."
        )
    return pictures


def _tell_of_others(path: Path, roots: Iterable[Path], say: Callable[[str], None]) -> None:
    """Of pictures that cannot be read because of their kind, and of texts that are beside none."""
    files = sorted({file for root in roots for file in _files_below(root)})
    unread = [file for file in files if file.suffix.lower() in OF_PICTURES - endings()]
    if unread:
        say(
            f"Pictures of a kind that Pillow does not read, which are left out: {len(unread)} "
            f"({_named(unread, path)}); save them as PNG or JPEG."
        )
    pictures = {file.with_suffix("") for file in files if file.suffix.lower() in endings() | OF_PICTURES}
    alone = [file for file in files if file.suffix in CAPTIONS_BESIDE and file.with_suffix("") not in pictures]
    if alone:
        say(f"Texts without a picture of their name, which are left out: {len(alone)} ({_named(alone, path)}).")


def picture_paths(config: DataConfig) -> list[Path]:
    """The pictures of the same folders, whether they have captions or not. Raises TrainingError."""
    path = Path(os.path.abspath(config.path))
    if config.kind == "folder":  # without its tables, which take time
        _check_folder(path)
        return _pictures_below(path)
    return [file for group in GROUPS[config.kind](config, path, lambda _: None) for file in group.paths]


def _plain(config: DataConfig, folder: Path, say: Callable[[str], None]) -> list[Group]:
    """Captions are in tables, such as metadata.jsonl, or beside the pictures; repeats in the configuration."""
    _check_folder(folder)
    paths = _pictures_below(folder)
    table = _captions_in_tables(folder, config.caption)
    missing = sorted(table.keys() - set(paths))
    if missing:
        say(f"Captions without a picture: {len(missing)} ({_named(missing, folder)}).")
    tops = {file.relative_to(folder).parts[0] if file.parent != folder else "" for file in paths}
    if not config.repeats and tops and all(map(KOHYA.fullmatch, tops)):
        say(
            f"The folders in data.path {folder} are called as kohya's, whose numbers say how often each picture is "
            'seen; they say nothing here. data.kind = "kohya" takes them so.'
        )
    repeats = _repeats(config.repeats, folder)
    return [Group(folder, paths, lambda file: [table[file]] if file in table else _beside(file), repeats)]


def _repeats(configured: Mapping[str, int], folder: Path) -> Callable[[Path], int]:
    """That of the nearest folder that is named. Raises TrainingError for a folder that is not there."""
    by_folder: dict[Path, int] = {}
    for name, count in configured.items():
        path = Path(os.path.normpath(folder / name))
        by_folder[path] = count
        if not path.is_dir() or not path.is_relative_to(folder):
            raise TrainingError(f"data.repeats names {name}, expected a folder in data.path {folder}: correct it.")
    return lambda file: next((by_folder[parent] for parent in file.parents if parent in by_folder), 1)


def _kohya(config: DataConfig, folder: Path, say: Callable[[str], None]) -> list[Group]:
    """Subfolders REPEATS_CLASS, as sd-scripts reads them: the first line of a caption, or else the class."""
    _check_folder(folder)
    groups, others = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        called = KOHYA.fullmatch(path.name)
        below = _pictures_below(path)
        paths = [file for file in below if file.parent == path]
        if called and int(called[1]) and paths:
            groups.append(_of_kohya(path, paths, int(called[1]), called[2]))
            others += [file for file in below if file.parent != path]
        else:
            others += below
    others += [file for file in _pictures_below(folder) if file.parent == folder]
    if not groups:
        raise TrainingError(
            f"data.path {folder} has no folder of pictures called REPEATS_CLASS, such as 10_cat, which kohya's layout "
            'has: name them so, or set data.kind to "folder".'
        )
    if others:
        say(f"Pictures outside folders called REPEATS_CLASS are left out: {len(others)} ({_named(others, folder)}).")
    return groups


def _of_kohya(folder: Path, paths: list[Path], repeats: int, described: str) -> Group:
    def captions(file: Path) -> list[str]:
        caption = next(iter(_beside(file)), described)
        return [caption.partition("\n")[0].strip()]

    return Group(folder, paths, captions, lambda _: repeats)


def _simpletuner(config: DataConfig, path: Path, say: Callable[[str], None]) -> list[Group]:
    """The local data sets of pictures in a multidatabackend.json. Raises TrainingError."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it is no list of data sets")
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"data.path {path} cannot be read ({getattr(error, 'strerror', None) or error}), expected SimpleTuner's "
            "multidatabackend.json: give its path."
        ) from error
    used = [entry for entry in entries if not (entry.get("disabled") or entry.get("disable"))]
    used = [entry for entry in used if entry.get("dataset_type", "image") not in ("text_embeds", "image_embeds")]
    return [_of_simpletuner(path, entry, say) for entry in used]


def _of_simpletuner(path: Path, entry: Mapping[str, Any], say: Callable[[str], None]) -> Group:
    name = f'the data set "{entry.get("id", "")}" of data.path {path}'
    unused = sorted(entry.keys() - OF_SIMPLETUNER)
    if unused:
        say(f"Keys that do nothing here in {name}: {', '.join(unused)}.")

    def value(key: str, default: Any, *allowed: Any) -> Any:
        found = entry.get(key, default)
        if found not in allowed if allowed else not isinstance(found, type(default)):
            expected = " or ".join(map(repr, allowed)) if allowed else f"a {type(default).__name__}"
            raise TrainingError(
                f"{key} is {found!r} in {name}, expected {expected}: change it, or set disabled to true there."
            )
        return found

    value("type", "local", "local")
    value("dataset_type", "image", "image")
    strategy = value("caption_strategy", None, "textfile", "filename", "instanceprompt")
    folder, prompt = Path(value("instance_data_dir", "")).expanduser(), value("instance_prompt", "")
    prepended, only = value("prepend_instance_prompt", False), value("only_instance_prompt", False)
    whole, repeats = value("disable_multiline_split", False), 1 + value("repeats", 0)
    if not folder.is_dir():
        raise TrainingError(f"instance_data_dir {folder} is no folder, in {name}: give one with pictures.")
    if (only or prepended or strategy == "instanceprompt") and not prompt:
        raise TrainingError(f"instance_prompt is missing in {name}, whose other keys need it: add it.")

    def captions(file: Path) -> list[str]:
        if only or strategy == "instanceprompt":
            return [prompt]
        found = [file.stem.replace("_", " ")] if strategy == "filename" else _beside(file, (".txt",))
        if strategy == "textfile" and not whole:
            found = [line.strip() for text in found for line in text.splitlines() if line.strip()]
        return [f"{prompt} {text}" for text in found] if prepended else found

    root = Path(os.path.abspath(folder))
    return Group(root, _pictures_below(root), captions, lambda _: max(repeats, 1))


GROUPS: dict[str, Callable[[DataConfig, Path, Callable[[str], None]], list[Group]]] = {
    "folder": _plain,
    "kohya": _kohya,
    "simpletuner": _simpletuner,
}


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise TrainingError(f"data.path {path} is no folder: give one with pictures and captions.")


def _pictures_below(folder: Path) -> list[Path]:
    return sorted(path for path in _files_below(folder) if path.suffix.lower() in endings())


def _files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Of linked folders too, but for one that it lies in itself (above: their real paths). Raises TrainingError.

    Hidden files are left out: systems put small copies and notes of their own there.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if entry.name[0] != "."]
    except OSError as error:
        raise TrainingError(f"The folder {folder} cannot be read ({error.strerror}): make it readable.") from error
    for entry in entries:
        if entry.is_dir():
            yield from _files_below(Path(entry.path), (*above, real))
        elif entry.is_file():
            yield Path(entry.path)


def _captions_in_tables(folder: Path, column: str) -> dict[Path, str]:
    """The captions by picture of all metadata.jsonl, .csv and .parquet, as datasets' imagefolder has them."""
    captions: dict[Path, str] = {}
    tables = sorted(path for path in _files_below(folder) if path.stem == "metadata" and path.suffix in TABLES)
    for table in tables:
        rows = 0
        try:
            for row in TABLES[table.suffix](table):
                path = _picture_of(row, table.parent)
                if row.get(column) is not None:
                    captions[path] = caption_of(row[column])
                rows += 1
            if not rows:
                raise ValueError("it is empty")
        except (ValueError, TypeError, LookupError, OSError, csv.Error) as error:
            place = f" after row {rows}" if rows else ""
            raise TrainingError(
                f"{table} cannot be read{place} ({' '.join(str(error).split())}), expected a "
                f'"file_name" and a "{column}" in every row: correct it there.'
            ) from error
    return captions


def _picture_of(row: Any, folder: Path) -> Path:
    """Raises ValueError."""
    name = row.get("file_name") if isinstance(row, dict) else None
    path = Path(os.path.normpath(folder / name)) if isinstance(name, str) else folder
    if not path.is_relative_to(folder) or path == folder:
        raise ValueError(f"its file_name is {name!r}")
    return path


def _of_jsonl(table: Path) -> Iterator[Any]:
    """datasets would make dates of texts."""
    with table.open(encoding="utf-8-sig") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _of_csv(table: Path) -> Iterator[Any]:
    """datasets would make 7.0 of 007 and nothing of NA; an empty field is none."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            yield {key: value or None for key, value in row.items()}


def _of_parquet(table: Path) -> Iterator[Any]:
    import datasets  # takes seconds

    # As a stream, for it would keep a copy and not see every change.
    names = {"train": [glob.escape(str(table))]}
    try:
        yield from datasets.load_dataset("parquet", data_files=names, split="train", streaming=True)
    except datasets.exceptions.DatasetsError as error:
        raise ValueError(str(error)) from error


TABLES: dict[str, Callable[[Path], Iterator[Any]]] = {".jsonl": _of_jsonl, ".csv": _of_csv, ".parquet": _of_parquet}


def _beside(path: Path, endings: tuple[str, ...] = CAPTIONS_BESIDE) -> list[str]:
    """The text in the file of the same name, or nothing. Raises TrainingError where it is not UTF-8."""
    beside = next((file for file in map(path.with_suffix, endings) if file.is_file()), None)
    try:
        return [] if beside is None else [beside.read_text(encoding="utf-8-sig").strip()]
    except ValueError as error:
        raise TrainingError(f"The caption {beside} is not UTF-8 ({error}): save it as UTF-8.") from error


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _named(paths: list[Path], folder: Path) -> str:
    return listed([_name(path, folder) for path in paths])


def listed(names: list[str]) -> str:
    """For a line for the user; of many the first ones."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
