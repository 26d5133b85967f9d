"""`python -m training CONFIG.toml`, or `accelerate launch -m training CONFIG.toml` on many GPUs or machines."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="training", description="Train a PeRFlow; see docs/training.md.")
    parser.add_argument("config", type=Path, help="a TOML file as in training/configs")
    arguments = parser.parse_args()
    from .config import read
    from .errors import Stopped, TrainingError

    try:
        config = read(arguments.config)
        from .loop import Run

        print(f"The delta is {Run(config).train()}", flush=True)
    except TrainingError as error:
        sys.exit(f"Error: {error}")
    except (Stopped, KeyboardInterrupt):
        sys.exit("Stopped. The same command goes on from here.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
