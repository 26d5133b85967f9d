"""Renew the lock files in scripts/locks: every package of an environment with its hashes, for every system and Python.

`python scripts/lock.py` changes what has to change. It needs Python and nothing else.
"""

import argparse
import os
import subprocess
from pathlib import Path

import environment
from environment import UserError, say
from installing import LOCKS, TOOLS, TRAINING, installers, uv_settings
from user_cache import run_program

OPTIONS = ("--universal", "--python-version", "3.10", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")
LOCAL = ("UV_INDEX", "UV_FIND_LINKS")  # packages that not everybody can have


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest version of everything")
    options = ["--upgrade"] if parser.parse_args().upgrade else []
    write("uv", [LOCKS / "uv.in"], options)
    write("page", [LOCKS / "page.in"], options)
    write("training", [TRAINING], options)
    for version in environment.VERSIONS:
        requirements = environment.find_comfyui(version) / "requirements.txt"
        write(version, [TOOLS, TRAINING, requirements], options, environment.lock_head(requirements))


def write(name: str, lists: list[Path], options: list[str], head: str = "") -> None:
    """Write scripts/locks/<name>.txt from lists of what is wanted."""
    path = LOCKS / f"{name}.txt"
    python = installers()
    settings = {name: value for name, value in uv_settings(python).items() if name not in LOCAL}
    here = ("--python", str(python))  # else uv looks for a Python of the lowest version, for seconds
    command = [str(python), "-m", "uv", "pip", "compile", *OPTIONS, *here, *options, *map(str, lists), "-o", str(path)]
    if subprocess.run(command, env={**os.environ, **settings}).returncode:
        raise UserError(f"{path.name} was not renewed: uv's reason is above.")
    path.write_text(head + path.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")
    say(f"{path} is written.")


if __name__ == "__main__":
    run_program(main)
