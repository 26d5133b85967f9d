"""Files and folders of a run are there whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def replace_whole(path: Path, data: bytes) -> None:
    """Write a file that appears under its name only when it is complete; another of that name makes room."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def numbered(folder: Path, prefix: str, wanted: Callable[[int], bool] = lambda _: True) -> list[tuple[int, Path]]:
    """The entries called prefix-NUMBER in a folder, lowest first."""
    found = []
    for path in folder.glob(f"{prefix}-*"):
        digits = path.name.removeprefix(f"{prefix}-").split(".")[0]
        if digits.isdecimal() and wanted(int(digits)):
            found.append((int(digits), path))
    return sorted(found)
