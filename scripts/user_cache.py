"""The folder that holds what these scripts download and make, and what all of them say and refuse with.

Standard library only: this file has to work on a machine that has Python and nothing else.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

PACK = Path(__file__).absolute().parent.parent


class UserError(Exception):
    """One sentence about something that the user can change."""


def say(text: str) -> None:
    print(text, flush=True)


def cache_root() -> Path:
    """The folder that holds what these scripts download and make."""
    if os.environ.get("PERFLOW_CACHE"):
        return Path(os.environ["PERFLOW_CACHE"]).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "comfyui-perflow"


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one process at a time through; the system frees the lock when its holder ends, however it ends."""
    path = cache_root() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        if not _try_lock(handle.fileno()):
            say("Another run is filling the cache; waiting for it.")
            while not _try_lock(handle.fileno()):
                time.sleep(0.5)
        yield


def _try_lock(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def run_to_its_end(command: Sequence[str], variables: Mapping[str, str] = os.environ) -> int:
    """The exit code of another program, which gets our SIGTERM; Ctrl-C reaches it too, and it puts things away."""
    process = subprocess.Popen(command, env=variables)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def run_program(main: Callable[[], int | None]) -> NoReturn:
    """A program's last line: what the user can act on, and Ctrl-C, end it in one sentence."""
    try:
        sys.exit(main())
    except (UserError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")
