"""Two processes on this CPU that find each other as torchrun's do."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any


def two_processes(
    target: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
) -> list[int | None]:
    """The exit codes of target(rank, *arguments). They are forked, as the libraries are here already."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    variables = {**(environment or {}), **found}
    processes = [
        multiprocessing.get_context("fork").Process(target=_begin, args=(rank, variables, target, arguments))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _begin(rank: int, variables: dict[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    from accelerate.state import AcceleratorState

    os.environ |= variables | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    AcceleratorState._reset_state(True)
    target(rank, *arguments)
