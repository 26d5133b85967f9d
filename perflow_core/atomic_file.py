"""Files are written whole or not at all: under another ending, which no loader offers, and renamed when complete."""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

UNFINISHED = ".unfinished"  # no longer than .safetensors: a name that is short enough stays so
ADVICE = {
    errno.ENOSPC: "free some disk space or choose another output folder",
    errno.EDQUOT: "free some of your disk space or choose another output folder",
    errno.EROFS: "this disk cannot be written to, so choose another output folder",
    errno.EACCES: "you may not write there, so change the folder's rights or choose another",
    errno.EPERM: "you may not write there, so change the folder's rights or choose another",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "this disk takes no files of that size, so choose another output folder",
}

File = TypeVar("File", bound="NewFile")


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


class NewFile:
    """A file that never takes the place of another; a context manager, which leaves nothing behind after an error.

    Of several names it takes the first that is free, when it is opened: the unfinished file holds the name's place, so
    a second writer sees it and takes the next. Raises FileExistsError where none is free, and OSError (disk full, no
    right to write).
    """

    def __init__(self, paths: Path | Iterable[Path]):
        """paths: the name, or names in the order in which they are tried, in one folder."""
        self._paths: Iterator[Path] = iter(() if isinstance(paths, Path) else paths)
        self.path, self.file = self._only_name(paths) if isinstance(paths, Path) else self._free_name()
        self._unfinished = Path(self.file.name)

    def _only_name(self, path: Path) -> tuple[Path, BinaryIO]:
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the name is taken", str(path))
        return path, path.with_suffix(f".{os.getpid()}{UNFINISHED}").open("wb")

    def _free_name(self) -> tuple[Path, BinaryIO]:
        for path in self._paths:
            if not path.exists():
                with contextlib.suppress(FileExistsError):  # somebody is writing it now
                    return path, path.with_suffix(UNFINISHED).open("xb")
        raise FileExistsError(errno.EEXIST, "every name is taken")

    def __enter__(self: File) -> File:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        try:
            self.file.close()  # fails again on a full disk, where something is left to be written
        finally:
            self._unfinished.unlink(missing_ok=True)

    def take_name(self) -> Path:
        """Give the file its name, which is returned: the next one where another program took it meanwhile."""
        self.file.flush()
        os.fsync(self.file.fileno())  # or a power failure could leave the name with nothing behind it
        self.file.close()
        for path in itertools.chain([self.path], self._paths):
            with contextlib.suppress(FileExistsError):
                _rename_to_new(self._unfinished, path)
                return path
        raise FileExistsError(errno.EEXIST, "the name was taken meanwhile", str(self.path))


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
