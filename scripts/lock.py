"""Renew the lock files in scripts/locks: every package of an environment with its hashes, for every system and Python.

`python scripts/lock.py` changes what has to change; `--upgrade` takes the newest of everything. Options go to
`uv pip compile`. It needs Python and nothing else.
"""

import os
import subprocess
import sys
from pathlib import Path

import environment
from environment import UserError, say
from installing import LOCKS, TOOLS, installers, uv_settings

OPTIONS = ("--universal", "--python-version", "3.10", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")
LOCAL = ("UV_INDEX", "UV_FIND_LINKS")  # packages that not everybody can have


def main() -> None:
    write("uv", [LOCKS / "uv.in"])
    for version in environment.VERSIONS:
        requirements = environment.find_comfyui(version) / "requirements.txt"
        write(version, [TOOLS, requirements], environment.lock_head(requirements))


def write(name: str, lists: list[Path], head: str = "") -> None:
    """Write scripts/locks/<name>.txt from lists of what is wanted."""
    path = LOCKS / f"{name}.txt"
    python = installers()
    settings = {name: value for name, value in uv_settings(python).items() if name not in LOCAL}
    command = [str(python), "-m", "uv", "pip", "compile", *OPTIONS, *sys.argv[1:], *map(str, lists), "-o", str(path)]
    if subprocess.run(command, env={**os.environ, **settings}).returncode:
        raise UserError(f"{path.name} was not renewed: uv's reason is above.")
    path.write_text(head + path.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")
    say(f"{path} is written.")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")
