"""Put the small model of this repository into your ComfyUI: a checkpoint and its PeRFlow delta, 925 MB.

    python scripts/install_small_model.py MODELS_FOLDER

MODELS_FOLDER is ComfyUI's folder `models`. Start this with the Python of your ComfyUI; nothing is installed. If the
folder is outside of ComfyUI, COMFYUI_PATH says where ComfyUI is.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from demo_options import SMALL
from user_cache import PACK, UserError, run_program, say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, metavar="MODELS_FOLDER")
    models = parser.parse_args().models.expanduser().absolute()
    if not models.is_dir():
        raise UserError(f"There is no folder {models}: give the folder models of your ComfyUI.")
    os.environ["PERFLOW_COMFYUI"] = str(comfyui_of(models))
    sys.path.append(str(PACK))
    from trial.small_models.tables import TABLES

    for name, write in TABLES["trained"](models).items():
        file = models / name
        if file.exists():
            say(f"{file} is there already and stays as it is.")
            continue
        file.parent.mkdir(exist_ok=True)
        write(file)
        say(f"{file} ({file.stat().st_size / 1e6:.0f} MB)")
    say(
        f"Press R in ComfyUI. Use 128 x 128 pixels, euler, 4 steps, CFG {SMALL['cfg']:g} and "
        f'a prompt such as "{SMALL["prompt"]}"; small_model/README.md has the words.'
    )


def comfyui_of(models: Path) -> Path:
    """The ComfyUI that the folder belongs to, whose code names the tensors."""
    given = os.environ.get("COMFYUI_PATH")
    for folder in [Path(given).expanduser().absolute()] if given else [models.parent, PACK.parent.parent]:
        if (folder / "comfy" / "sd.py").is_file():
            return folder
    raise UserError(f"There is no ComfyUI beside {models}: set COMFYUI_PATH to the folder of your ComfyUI.")


if __name__ == "__main__":
    run_program(main)
