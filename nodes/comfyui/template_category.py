"""The pack's name in the template browser, whatever the folder is called that it was cloned into.

The page shows the folder's name unless locales/<language>/main.json of the pack has another name for exactly that one.
So these files are written here, when the pack is loaded, and are not in the repository. English has nothing else: the
page shows the texts of the schemas.
"""

import json
import logging
from pathlib import Path

from ...perflow_core.atomic_file import atomic_write

NAME = "PeRFlow"
PACK = Path(__file__).parents[2]  # as ComfyUI found it: a link's name, and not that of what it leads to


def write_name(pack: Path = PACK) -> None:
    """Where the folder cannot be written to, its own name stays in the template browser."""
    try:
        (pack / "locales" / "en").mkdir(exist_ok=True)
        for language in (pack / "locales").iterdir():
            _add_name(language / "main.json", pack.name.replace(".", "_"))  # as the page looks it up
    except OSError as error:
        logging.debug("perflow: the template browser shows the folder's name, since %s.", error)


def _add_name(path: Path, folder: str) -> None:
    """Names for other folders stay: links of other ComfyUIs can lead to the same files."""
    names = _names(path)
    if names.get(folder) == NAME:
        return
    texts = {"templateWorkflows": {"category": names | {folder: NAME}}}
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(texts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _names(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["templateWorkflows"]["category"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, or damaged
        return {}
