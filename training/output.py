"""The folder of a run: whether it can be one, and a lock, so that two runs do not write into it."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

from perflow_core.atomic_file import UNFINISHED

from .stopping import TrainingError

LOCKS = "process-{}.lock"


def check(output: str) -> None:
    """Makes nothing. Raises TrainingError where `output` can be no folder to write to."""
    path = Path(output).absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise TrainingError(
            f"output {output} cannot be a folder ({there} is a file): choose another path, or move what is there."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise TrainingError(
            f"output {output} cannot be written to (you may not write into {there}): choose another path, or change "
            "the folder's rights."
        )


def made(output: str) -> Path:
    """The folder, made where it is not there. Raises TrainingError."""
    check(output)
    path = Path(output)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"output {output} cannot be a folder ({error.strerror}): choose another path, or move what is there."
        ) from error
    return path


def tidy(output: Path) -> None:
    """Delete the files that a run that was killed had not written to their end, before this one writes any."""
    for folder in ("prompts", "latents", "endpoints", "deltas", "previews"):
        for path in (output / folder).rglob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)


def lock(output: Path, rank: int) -> FileLock:
    """Taken until this process ends, however it ends. Raises TrainingError where another process has it.

    Each process of a run has its own: where some of a run are killed, one that lives on may still write.
    """
    taken = FileLock(output / LOCKS.format(rank), is_singleton=True)  # the runs of one process follow each other
    try:
        taken.acquire(blocking=False)
    except Timeout:
        raise TrainingError(
            f"Another run is writing into {output}: wait until it has ended, or choose another output for this one."
        ) from None
    except (NotImplementedError, OSError):  # a network disk without locks
        pass
    return taken
