"""Small models that are made once and kept in the user's cache, a folder for each table of small_models/tables.py.

They are made in a process of its own: that imports ComfyUI, whose arguments are read once, when it is imported.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import environment
from environment import PACK, UserError, say

SOURCES = Path(__file__).with_name("small_models")
TRAINED = PACK / "small_model"
MADE_OF = {  # the weights that a table's files are made of
    "trained": ("autoencoder", "delta", "teacher"),
    "trained_flow": ("flow_autoencoder", "flow_delta", "flow_teacher"),
}
UNUSED_FOR = 3 * 3600  # seconds after which models made by other sources are thrown away: one set of graphs is 3.5 GB


def folder(table: str, comfyui: Path) -> Path:
    """A folder laid out as ComfyUI's models/, with every file of that table."""
    models = environment.cache_root() / "models"
    folder = models / f"{table}-{version(table, comfyui)}"
    if not (folder / "complete").is_file():
        with environment.lock("models"):
            if not (folder / "complete").is_file():
                say(f"Making the small {table} models in {folder} (once).")
                command = [sys.executable, "-m", "trial.cached_models", table, str(folder)]
                environ = {**os.environ, "PERFLOW_COMFYUI": str(comfyui)}
                made = subprocess.run(command, cwd=SOURCES.parents[1], env=environ)
                if made.returncode:
                    raise UserError(f"The small models could not be made in {folder}: the reason is above.")
                remove_unused(models)
    os.utime(folder)
    return folder


def write_model_paths(file: Path, comfyui: Path, *tables: str) -> Path:
    """Write what --extra-model-paths-config takes to show ComfyUI the models of those tables.

    Without one they are every model that the graphs ask for.
    """
    found = {}
    for table in tables or ("graphs", "trained"):
        kinds = [kind for kind in folder(table, comfyui).iterdir() if kind.is_dir()]
        found[f"small {table}"] = {kind.name: str(kind) for kind in kinds}
    file.write_text(json.dumps(found))  # JSON is YAML
    return file


def version(table: str, comfyui: Path) -> str:
    """Changes with every line that decides what is in the files, and with ComfyUI, whose modules give their names."""
    sources = [*sorted(SOURCES.glob("*.py")), comfyui / "comfyui_version.py"]
    if table in MADE_OF:
        weights = (TRAINED / "weights" / f"{name}.safetensors" for name in MADE_OF[table])
        sources += [*sorted(TRAINED.glob("networks/*.py")), *(file for file in weights if file.is_file())]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def remove_unused(models: Path) -> None:
    for folder in models.glob("*-*"):
        if time.time() - folder.stat().st_mtime > UNUSED_FOR:
            shutil.rmtree(folder, ignore_errors=True)


def make(table: str, folder: Path) -> None:
    """What the process of its own does."""
    from trial.small_models.tables import TABLES

    for unfinished in folder.glob("*/.*"):  # of a run that was ended
        unfinished.unlink()
    for name, write in TABLES[table](folder).items():
        if not (folder / name).is_file():
            write(folder / name)
    (folder / "complete").touch()


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
