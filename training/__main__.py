"""`python -m training CONFIG.toml`, or `accelerate launch -m training CONFIG.toml` on many GPUs or machines."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # prompts are few, and the library warns of forks otherwise


STOPPED = "Stopped. Run the same command again to continue from here."
LOST = (
    "Another process of this run ended, and this one ends with it: see what that one said, and run the same command "
    "again to continue."
)


def main() -> None:
    try:
        train_or_plan()
    except KeyboardInterrupt:  # wherever it is, as while libraries are imported, which takes seconds
        sys.exit(STOPPED)


def train_or_plan() -> None:
    """What the arguments say, until it is done or the user stops it."""
    parser = argparse.ArgumentParser(prog="training", description="Train a PeRFlow; see docs/training.md.")
    parser.add_argument("config", type=Path, help="a TOML file as in training/configs")
    parser.add_argument("--plan", action="store_true", help="say what the run needs and how long it takes, and end")
    arguments = parser.parse_args()
    from .config import read
    from .stopping import Stopped, TrainingError, of_a_lost_process

    try:
        config = read(arguments.config)
        if arguments.plan:
            from .planning import plan_run

            plan_run(config, sys.stdout.write)
            return
        from .run import Run  # takes more seconds, and mistakes in the configuration are reported before

        run = Run(config)
        path = run.train()
        run.say(f"The delta is {path}.")
    except TrainingError as error:
        sys.exit(f"Error: {error}")
    except Stopped:
        sys.exit(STOPPED)
    except RuntimeError as error:
        if not of_a_lost_process(error):
            raise
        sys.exit(LOST)


if __name__ == "__main__":
    main()
