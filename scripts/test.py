"""Every check: ruff, mypy, and the tests against a real ComfyUI, in its web page too where there is a Chromium.

`python scripts/test.py [--comfyui VERSION] [--install-chromium] [pytest arguments]` needs Python and nothing else.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chromium
import environment
from environment import PACK, say
from user_cache import run_program

SCRIPTS = PACK / "scripts"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="VERSION", help=f"one of {', '.join(environment.VERSIONS)}")
    parser.add_argument(
        "--install-chromium", action="store_true", help="first get the browser for tests/browser (apt-get, needs root)"
    )
    options, pytest = parser.parse_known_args()
    if options.install_chromium:
        chromium.install_chromium()
    comfyui = environment.enter(options.comfyui)  # from here on inside our environment
    say(f"ComfyUI: {comfyui}")
    arguments = all_unless_named(pytest)
    for tool in ("RUFF", "MYPY"):
        os.environ[f"{tool}_CACHE_DIR"] = str(environment.cache_root() / tool.lower())
    with ThreadPoolExecutor(1) as beside:
        types = beside.submit(types_pass)
        if arguments:
            warn_of_a_full_disk()
            make_models(comfyui)
        results = {
            "ruff check": passes("ruff check", PACK, "ruff", "check", "."),
            "ruff format": passes("ruff format", PACK, "ruff", "format", "--check", "."),
            **types.result(),
        }
    results["pytest"] = passes("pytest", PACK, "pytest", *arguments, *IN_TWO_PROCESSES, *pytest)
    failed = [what for what, passed in results.items() if not passed]
    if failed:
        say(f"Failed: {', '.join(failed)}.")
    return 1 if failed else 0


# Each process keeps to one core and starts its own ComfyUI, so a file's tests stay together; files stay in order, those
# with a browser last. `-n 0` after it is pytest in one process.
IN_TWO_PROCESSES = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder") if (os.cpu_count() or 1) > 1 else ()


def all_unless_named(arguments: list[str]) -> list[str]:
    """The folder of all tests, unless pytest is given files or folders of its own."""
    named = any((PACK / argument.partition("::")[0]).exists() for argument in arguments)
    return [] if named else ["tests"]


FREE = 14  # GB: small models that stay in the cache, and what tests write until they end


def warn_of_a_full_disk() -> None:
    for folder in (environment.cache_root(), Path(tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free / 1e9
        if free < FREE:
            say(f"{folder} has {free:.1f} GB free, and all tests write about {FREE}: free some if they fail.")


def make_models(comfyui: Path) -> None:
    """Those that most tests ask for, which would otherwise wait for them in each process."""
    from trial import cached_models

    for table in ("graphs", "flows", "trained"):
        cached_models.folder(table, comfyui)


MYPY = ("mypy", "--config-file", str(PACK / "pyproject.toml"))


def types_pass() -> dict[str, bool]:
    from trial.installed_pack import FOLDER, install_pack

    # The pack as ComfyUI has it: a package, whose name must not hang on the name of this checkout.
    with tempfile.TemporaryDirectory() as folder:
        install_pack(PACK, Path(folder) / FOLDER)
        packages = ("-p", f"{FOLDER}.nodes", "-p", f"{FOLDER}.perflow_core")
        pack = passes("mypy on the pack", Path(folder), *MYPY, *packages)
    return {
        "mypy on the pack": pack,
        "mypy on scripts": passes("mypy on scripts", SCRIPTS, *MYPY, "."),
        "mypy on training": passes("mypy on training", PACK, *MYPY, "-p", "training", "-p", "small_model"),
    }


def passes(what: str, where: Path, *command: str) -> bool:
    say(f"\nRunning {what}.")
    return subprocess.run([sys.executable, "-m", *command], cwd=where).returncode == 0


if __name__ == "__main__":
    run_program(main)
