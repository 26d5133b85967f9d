"""What was made with what: facts that are kept beside it, so that it is made again, or refused, where they changed.

A fact has the name of its configuration key where there is one, and a value that JSON keeps. What lies in files is a
digest.
"""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash

from perflow_core.atomic_file import atomic_write

from .config import Config
from .stopping import writing

Facts = dict[str, Any]
NOTE = "made_with.json"


def of_run(config: Config, digests: Mapping[str, str], processes: int) -> Facts:
    """All that a run depends on; digests: the teacher's, and of what the student begins with."""
    values = json.loads(json.dumps(config.model_dump()))  # tuples become what they are when they are read again
    flat: Facts = {}
    for name, value in values.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat | {"accelerate's number of processes": processes} | dict(digests)


def chosen(facts: Facts, keys: Collection[str]) -> Facts:
    """Those of some keys; one that ends with a dot stands for its section."""
    return {key: value for key, value in facts.items() if key in keys or f"{key.split('.')[0]}." in keys}


def differences(then: Facts, now: Facts) -> str:
    """What is another now, as `KEY = OLD, and it is NEW now` with semicolons between; empty where nothing is."""
    keys = [key for key in (now | then) if then.get(key) != now.get(key)]
    return "; ".join(f"{key} = {then.get(key)!r}, and it is {now.get(key)!r} now" for key in keys)


def renewed(folder: Path, facts: Facts) -> str:
    """Make the folder empty unless its note says that it was made with these facts, which it says afterwards.

    Returns the sentence that tells the user why something was deleted; empty where nothing was.
    """
    try:
        then = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        then = {}
    changed, why = differences(then, facts), ""
    if changed and folder.is_dir() and any(folder.iterdir()):
        shutil.rmtree(folder)
        why = f"{folder} is made again: it was made with {changed if then else f'settings that no {NOTE} tells'}."
    with writing(folder / NOTE), atomic_write(folder / NOTE) as unfinished:
        unfinished.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return why


def digest(parts: Iterable[Any]) -> str:
    """Of bytes-like parts as they are and of others as JSON, in order; 16 letters."""
    found = xxhash.xxh3_64()  # a teacher of 14 GB takes seconds, and nobody forges one
    for part in parts:
        found.update(part if isinstance(part, bytes | memoryview) else json.dumps(part, default=str).encode())
    return found.hexdigest()


def of_file(path: Path) -> tuple[str, int, int]:
    """What tells a file from another of its name, without reading it: name, size, time of change. Raises OSError.

    The time of the inode is left out: a move or a copy would have everything made again.
    """
    facts = path.stat()
    return path.name, facts.st_size, facts.st_mtime_ns


def of_module(module: torch.nn.Module) -> Iterable[Any]:
    """Parts for `digest`: a model's configuration and weights."""
    config: Any = module.config
    values = config if isinstance(config, Mapping) else config.to_dict()
    # Versions and paths say nothing about what it computes.
    kept = {key: value for key, value in values.items() if key[0] != "_" and key != "transformers_version"}
    yield sorted(kept.items())
    for name, weight in module.state_dict().items():
        yield name
        yield memoryview(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
