"""What loading the pack changes in ComfyUI."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock


class Changes(NamedTuple):
    changed: set[str]  # names in ComfyUI's modules and classes that are not what they were before
    added_to: set[str]  # dictionaries there that have new entries, and all the old ones


CHANGES: list[Changes] = []


@contextmanager
def watched_loading() -> Iterator[None]:
    """What `process.load_pack` changes meanwhile is appended to CHANGES."""
    from trial import process

    with mock.patch.object(process, "load_pack", functools.partial(_watched, process.load_pack)):
        yield


def _watched(load_pack: Callable[..., Any], *arguments: Any) -> Any:
    before = core_state()
    loaded = load_pack(*arguments)
    after = core_state()
    different = {name for name, value in before.items() if after.get(name) != value}
    added_to = {name for name in different if only_grown(before[name], after.get(name))}
    CHANGES.append(Changes(different - added_to, added_to))
    return loaded


CORE = ("comfy", "nodes", "execution", "server", "folder_paths", "latent_preview", "node_helpers", "app")


def core_state() -> dict[str, Any]:
    """What a pack could replace or add to: the names in ComfyUI's modules and classes, and their contents."""
    state: dict[str, Any] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0].removesuffix("_extras").removesuffix("_api") not in CORE:
            continue
        for name, value in vars(module).items():
            state[f"{module_name}.{name}"] = fingerprint(value)
            if isinstance(value, type) and value.__module__ == module_name:
                members = {f"{module_name}.{name}.{key}": fingerprint(member) for key, member in vars(value).items()}
                state |= members
    return state


def only_grown(before: Any, after: Any) -> bool:
    """Whether a dictionary's fingerprint differs by new entries alone."""
    both_dicts = all(isinstance(value, tuple) and isinstance(value[1], dict) for value in (before, after))
    return both_dicts and before[0] == after[0] and before[1].items() <= after[1].items()


def fingerprint(value: Any) -> Any:
    """Identity, and for collections what is in them."""
    if isinstance(value, dict):
        return id(value), {str(key): id(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return id(value), [id(item) for item in value]
    if isinstance(value, set):
        return id(value), sorted(id(item) for item in value)
    return id(value)
