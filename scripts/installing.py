"""Python environments from lists of packages, each made once and kept in the user's cache.

Standard library only: this file has to work on a machine that has Python and nothing else.
"""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from user_cache import PACK, UserError, cache_root, lock, say

LOCKS = PACK / "scripts" / "locks"
TOOLS = LOCKS / "tools.in"  # what the scripts themselves use, and the PyTorch that ComfyUI gets
TRAINING = PACK / "training" / "requirements.in"  # what the training program uses, which the tests run too
HEARTBEAT = 15  # seconds between signs of life while packages are installed
# pip's settings -> the variables of uv, which does not read them, for the same
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
}


def locked_environment(lock_file: Path) -> Path:
    """The Python of an environment with exactly the packages of a lock file (scripts/lock.py makes those)."""
    return environment_with(lock_file.stem, lock_file)


def installers() -> Path:
    """The Python of a small environment with pip and uv, by which all the rest is fetched."""
    return environment_with("uv", LOCKS / "uv.txt", make=_make_with_pip)


def digest(*files: Path) -> str:
    """Of texts, whatever ends their lines."""
    return hashlib.sha256("".join(file.read_text(encoding="utf-8") for file in files).encode()).hexdigest()


def environment_with(name: str, *lists: Path, make: Callable[..., None] | None = None) -> Path:
    """The Python of the cached environment that has the packages of these lists, made unless it is complete."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}-{name}-{digest(*lists)[:12]}"
    folder = cache_root() / "environments" / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "complete"  # written last: without it an install was interrupted and starts afresh
    if stamp.is_file() and python.exists():
        return python
    with lock(name):
        if stamp.is_file() and python.exists():
            return python
        if folder.exists():
            say(f"Removing the unfinished {folder}.")
            shutil.rmtree(folder)
        say(f"Making a Python environment in {folder}.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        (make or _make_with_uv)(folder, python, [word for path in lists for word in ("-r", str(path))])
        stamp.touch()
    return python


def _make_with_pip(folder: Path, python: Path, packages: Sequence[str]) -> None:
    try:
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    except (subprocess.CalledProcessError, OSError) as error:
        raise UserError(
            f"Python could not make a virtual environment in {folder} ({error}): "
            "install its venv and ensurepip modules (on Debian: the python3-venv package) and run this again."
        ) from None
    run_installer([str(python), "-m", "pip", "install", "--only-binary", ":all:", *packages], folder)


def _make_with_uv(folder: Path, python: Path, packages: Sequence[str]) -> None:
    first = installers()
    settings = {**uv_settings(first), **os.environ}  # the user's own settings of uv win
    uv = [str(first), "-m", "uv"]
    run_installer([*uv, "venv", "--no-project", "--python", sys.executable, str(folder)], folder, settings)
    run_installer([*uv, "pip", "install", "--python", str(python), *packages], folder, settings)


def uv_settings(python: Path) -> dict[str, str]:
    """Environment variables that make uv install from pip's sources, with its cache inside ours."""
    listed = subprocess.check_output([str(python), "-m", "pip", "config", "list"], encoding="utf-8")
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)=('.*')$", listed, re.MULTILINE)
    found.sort(key=lambda setting: ("global", "install", ":env:").index(setting[0]))  # the last one counts
    pip = {name: ast.literal_eval(value).split() for _, name, value in found}
    # As pip does: folders that are not there are passed over, and a package may come from any index.
    places = [place for place in pip.pop("find-links", ()) if "://" in place or Path(place).exists()]
    variables = {PIP_TO_UV[name]: " ".join(words) for name, words in pip.items() if name in PIP_TO_UV}
    variables |= {"UV_FIND_LINKS": ",".join(places)} if places else {}
    return variables | {"UV_CACHE_DIR": str(cache_root() / "uv"), "UV_INDEX_STRATEGY": "unsafe-best-match"}


def run_installer(command: Sequence[str], target: Path, settings: Mapping[str, str] = os.environ) -> None:
    """Fill a folder with pip or uv: their whole output goes to a log, its main lines and a heartbeat to the screen."""
    environment = {**settings, "PIP_PROGRESS_BAR": "off", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUTF8": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    log = target.with_name(f"{target.name}.log")
    done = threading.Event()
    threading.Thread(target=_heartbeat, args=(done,), daemon=True).start()
    with log.open("w", encoding="utf-8") as out, subprocess.Popen(command, env=environment, **pipes) as process:
        for line in process.stdout or ():
            out.write(line)
            if line.strip().startswith(("Downloading", "Building", "Prepared", "Installed")):
                say(f"  {line.strip()}")
    done.set()
    if process.returncode:
        found = re.search(
            r"^ *(?:error:|×)(.*)", log.read_text(encoding="utf-8"), re.IGNORECASE | re.MULTILINE | re.DOTALL
        )
        reason = " ".join(found[1].split())[:400] if found else f"it ended with code {process.returncode}"
        raise UserError(f"{target.name} could not be filled: {reason} (the installer's whole output is in {log}).")


def _heartbeat(done: threading.Event) -> None:
    start = time.monotonic()
    while not done.wait(HEARTBEAT):
        say(f"  ... at work for {time.monotonic() - start:.0f} s")
