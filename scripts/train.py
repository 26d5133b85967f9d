"""Train a PeRFlow: `python scripts/train.py CONFIG.toml`, with `--multi_gpu` on several GPUs.

Makes an environment for it, once, and starts the program `training` there. With `--plan` it says what the run needs and
how long it takes, and ends. All other options go to `accelerate launch`. docs/training.md says the rest.
"""

import os
import sys
from pathlib import Path

from config_check import check
from environment import PACK, say
from installing import LOCKS, locked_environment
from user_cache import UserError, run_program, run_to_its_end

PLAN = "--plan"


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        say(__doc__ or "")
        return 0 if len(sys.argv) > 1 else 2
    options, config = split(sys.argv[1:])
    check(Path(config))
    plan = [option for option in options if option == PLAN]
    options = [option for option in options if option != PLAN]
    python = str(locked_environment(LOCKS / "training.txt"))
    # Without options accelerate's launcher would only keep this program's signals from it.
    launcher = ["-m", "accelerate.commands.launch", *options] if options else []
    search = os.pathsep.join([str(PACK), *filter(None, [os.environ.get("PYTHONPATH")])])
    return run_to_its_end([python, *launcher, "-m", "training", *plan, config], {**os.environ, "PYTHONPATH": search})


def split(arguments: list[str]) -> tuple[list[str], str]:
    """The options, and the configuration: the .toml file, anywhere among them. Raises UserError.

    A first word without that ending is one, too. What follows `--config_file` is accelerate's own configuration.
    """
    before = ["", *arguments]
    places = [
        place
        for place, word in enumerate(arguments)
        if word.lower().endswith(".toml") and not word.startswith("-") and before[place] != "--config_file"
    ]
    if not places and not arguments[0].startswith("-"):
        places = [0]
    if len(places) != 1:
        found = " and ".join(arguments[place] for place in places) or "no configuration"
        advice = "give one of them" if places else "add its path"
        raise UserError(f"{' '.join(arguments)} names {found}, expected one .toml file: {advice}.")
    place = places[0]
    return arguments[:place] + arguments[place + 1 :], arguments[place]


if __name__ == "__main__":
    run_program(main)
