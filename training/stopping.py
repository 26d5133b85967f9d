"""What ends a run early: an error that the user can act on, or the user; then the run can be continued."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


class TrainingError(Exception):
    """One sentence: what was found, what was expected, what to do."""


class Stopped(Exception):  # noqa: N818 - a wish, not an error
    """The user stopped the run; all that is needed to continue it is on disk."""


def of_a_lost_process(error: Exception) -> bool:
    """Whether another process of the run ended while this one was waiting for it, which gloo says in words alone."""
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around the writing of a file: TrainingError where the disk is full, or may not be written to."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be written ({error}): free disk space and start again.") from error


@contextmanager
def stoppable(requested: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set `requested`, so that the run ends after the step; a second one ends it at once."""

    def request(number: int, frame: Any) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
