"""Train a PeRFlow: `python scripts/train.py CONFIG.toml`, with `--multi_gpu` before it on several GPUs.

Makes an environment for it, once, and starts the program `training` there. What stands before the configuration goes to
`accelerate launch`. docs/training.md says the rest.
"""

import os
import signal
import subprocess
import sys

from environment import PACK, say
from installing import LOCKS, locked_environment
from user_cache import run_program


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        say(__doc__ or "")
        return 0 if len(sys.argv) > 1 else 2
    *options, config = sys.argv[1:]
    python = str(locked_environment(LOCKS / "training.txt"))
    # Without options accelerate's launcher would only keep this program's signals from it.
    launcher = ["-m", "accelerate.commands.launch", *options] if options else []
    search = os.pathsep.join([str(PACK), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen([python, *launcher, "-m", "training", config], env={**os.environ, "PYTHONPATH": search})
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reached the program too: wait until it has saved its state


if __name__ == "__main__":
    run_program(main)
