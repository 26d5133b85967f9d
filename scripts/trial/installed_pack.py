"""The pack where a ComfyUI looks for it."""

import shutil
from pathlib import Path

FOLDER = "perflow"  # what the ComfyUI Manager would call the installed pack
NOT_INSTALLED = (".git", "__pycache__", "tests", ".*_cache")


def install_pack(pack: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.symlink_to(pack, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(pack, target, ignore=shutil.ignore_patterns(*NOT_INSTALLED))
