"""Train a PeRFlow: `python scripts/train.py CONFIG.toml`, with `--multi_gpu` before it on several GPUs.

Makes an environment for it, once, and starts the program `training` there. What stands before the configuration goes to
`accelerate launch`. docs/training.md says the rest.
"""

import os
import sys

from environment import PACK, say
from installing import LOCKS, locked_environment
from user_cache import run_program, run_to_its_end


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        say(__doc__ or "")
        return 0 if len(sys.argv) > 1 else 2
    *options, config = sys.argv[1:]
    python = str(locked_environment(LOCKS / "training.txt"))
    # Without options accelerate's launcher would only keep this program's signals from it.
    launcher = ["-m", "accelerate.commands.launch", *options] if options else []
    search = os.pathsep.join([str(PACK), *filter(None, [os.environ.get("PYTHONPATH")])])
    return run_to_its_end([python, *launcher, "-m", "training", config], {**os.environ, "PYTHONPATH": search})


if __name__ == "__main__":
    run_program(main)
