"""Files are written whole or not at all: with another ending, which no loader lists, and renamed when complete."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"
ADVICE = {
    errno.ENOSPC: "free some disk space or choose another output folder",
    errno.EDQUOT: "free some of your disk space or choose another output folder",
    errno.EROFS: "this disk cannot be written to, so choose another output folder",
    errno.EACCES: "you may not write there, so change the folder's rights or choose another",
    errno.EPERM: "you may not write there, so change the folder's rights or choose another",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "this disk takes no files of that size, so choose another output folder",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, whose file becomes `path` when the block ends, in place of an older one.

    After an error nothing is left of it. The folder is made where there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` to write to and then to name with `take_name`; without that nothing is left of it."""
    unfinished = path.with_name(f"{path.stem[:40]}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        with unfinished.open("xb") as file:  # closing fails again on a full disk, where something is left to be written
            yield file
    finally:
        unfinished.unlink(missing_ok=True)


def take_name(file: BinaryIO, paths: Iterable[Path]) -> Path:
    """Close a file of `new_file` and give it the first name that is free, which is returned. No file is replaced.

    Raises FileExistsError where all are taken.
    """
    file.flush()
    os.fsync(file.fileno())  # or a power failure could leave the name with nothing behind it
    file.close()
    for path in paths:
        with contextlib.suppress(FileExistsError):
            _rename_to_new(Path(file.name), path)
            return path
    raise FileExistsError(errno.EEXIST, "the name is taken", str(path))


def in_one_sentence(error: OSError, path: Path) -> OSError:
    """An error of the same class that names the file, what happened, and what to do."""
    name = path.name if len(path.name) <= 80 else f"{path.name[:60]}... ({len(path.name)} letters)"
    what = (error.strerror or str(error)).lower()
    advice = ADVICE.get(error.errno or 0, "choose another output folder")
    return type(error)(f"{name} cannot be written to {path.parent} ({what}), expected to make a file there: {advice}.")


def _rename_to_new(unfinished: Path, path: Path) -> None:
    """Give the file its name unless somebody has it: FileExistsError. A link does both in one step."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # no links on this disk (FAT, some network disks)
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the name is taken", str(path)) from None
        unfinished.rename(path)
