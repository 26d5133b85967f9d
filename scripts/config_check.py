"""What of a training's configuration can be checked before its environment is there, which takes 5 GB and minutes.

Standard library only. Keys are read from the text of training/config.py, which checks their values later.
"""

import ast
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from user_cache import PACK, UserError

PATHS = (("teacher", "path"), ("student", "delta"), ("data", "path"), ("preview", "prompts"))


def check(path: Path) -> None:
    """Raises UserError for a file that is no TOML, keys that are unknown or missing, and paths that are not there.

    Python 3.10 has no reader of TOML; with it only the file itself is looked for.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a configuration.") from None
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): save it as UTF-8.") from None
    if sys.version_info >= (3, 11):
        import tomllib

        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path} is not valid TOML ({error}): correct it there.") from None
        wrong = [*_wrong_keys(values, "Config", _models(), ""), *_absent(values)]
        if wrong:
            raise UserError(f"{path}: {'; '.join(wrong)}.")


def _models() -> dict[str, dict[str, tuple[str, bool]]]:
    """The classes of training/config.py: the type of each field, and whether it has to be given."""
    tree = ast.parse((PACK / "training" / "config.py").read_text(encoding="utf-8"))
    return {
        node.name: {
            field.target.id: (ast.unparse(field.annotation), field.value is None)
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def _wrong_keys(values: dict[str, Any], name: str, models: dict[str, Any], prefix: str) -> Iterator[str]:
    """In the words of training/config.py."""
    fields = models[name]
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            yield f"{prefix}{key} is not a configuration key" + (f", use {near[0]}" if near else ", remove it")
        elif fields[key][0] not in models:
            continue
        elif not isinstance(value, dict):
            yield f"{prefix}{key} is {value!r}, expected a section: write its keys below [{prefix}{key}]"
        else:
            yield from _wrong_keys(value, fields[key][0], models, f"{prefix}{key}.")
    for key, (_, required) in fields.items():
        if required and key not in values:
            yield f"{prefix}{key} is missing, add it"


def _absent(values: dict[str, Any]) -> Iterator[str]:
    """Shards have braces or addresses, so they are looked for later."""
    for section, name in PATHS:
        table = values.get(section)
        path = table.get(name) if isinstance(table, dict) else None
        shards = section == "data" and isinstance(table, dict) and table.get("kind") == "webdataset"
        if isinstance(path, str) and path and not shards and not Path(path).expanduser().exists():
            yield f"{section}.{name} is {path}, which is not there"
