"""The delta of a student, as Apply PeRFlow Delta reads it."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from perflow_core.weights.extraction import Extraction
from perflow_core.weights.lora_file import lora_name, lora_of_peft, ranks
from perflow_core.weights.safetensors_writer import write_new
from perflow_core.weights.transformer_names import TransformerNames

from .config import SaveConfig
from .stopping import writing


def write(
    path: Path,
    weights: dict[str, Tensor],
    base: dict[str, Tensor],
    beside: Mapping[str, Tensor],
    names: TransformerNames | None,
    config: SaveConfig,
    **facts: str,
) -> Path:
    """Write the file whole; the path that has it. Where another file has the name, this one's ends in -2, -3, ...

    weights: the student's; base: the teacher's, which a whole student is a difference to, none for a LoRA; beside: dW
    of weights that a LoRA has no adapter for; names: as `Teacher.names`. Raises TrainingError.
    """
    dtype: torch.dtype = getattr(torch, config.precision)
    if base:
        extraction = _full_delta(weights, base, names, config.rank, dtype)
    else:
        tensors = names.low_rank(weights, dtype) if names else lora_of_peft(weights, dtype)
        extraction = Extraction(0, 0.0, tensors=tensors, ranks=ranks(tensors))
        for key, dW in (names.whole(beside) if names else {_lora_key(key): dW for key, dW in beside.items()}).items():
            extraction.add(key, dW, dtype)
    metadata = extraction.metadata(**facts)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        usable = (name for name in _names(path) if not name.exists() or _holds(name, extraction.tensors, metadata))
        found = next(usable)
        return found if found.exists() else write_new(extraction.tensors, found, metadata)


def is_written(folder: Path, run: str, step: int) -> bool:
    """Whether the folder has the delta of that step of the run with this `state.identity`, under any name."""
    found = (_metadata(path) for path in folder.glob("*.safetensors"))
    return any((facts.get("run"), facts.get("steps")) == (run, str(step)) for facts in found)


def keep_last(path: Path, config: SaveConfig) -> None:
    """Delete the deltas of all but the last steps of the run that wrote this one, as their metadata say.

    Names as `write` gives them are looked at alone: others are the user's own copies.
    """
    if not config.keep_deltas:
        return
    run, name = _run(path), re.compile(re.escape(config.name) + r"-(\d{6,})(-\d+)?\.safetensors")
    named = ((name.fullmatch(file.name), file) for file in path.parent.iterdir())
    found = [(int(match[1]), file) for match, file in named if match and run and _run(file) == run]
    kept = sorted({step for step, _ in found})[-config.keep_deltas :]
    for step, file in found:
        if step not in kept and file != path:
            file.unlink()


def _run(path: Path) -> str:
    return _metadata(path).get("run", "")


def _metadata(path: Path) -> dict[str, str]:
    """Of a file that may be anything."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}-{number}")


def _holds(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file has these and nothing else, as when a run that had ended is started again."""
    try:
        with safe_open(str(path), framework="pt") as file:
            if file.metadata() != metadata or set(file.keys()) != tensors.keys():
                return False
            return all(_same(file.get_tensor(name), tensor) for name, tensor in tensors.items())
    except (OSError, SafetensorError):
        return False


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _full_delta(
    student: dict[str, Tensor], base: dict[str, Tensor], names: TransformerNames | None, rank: int, dtype: torch.dtype
) -> Extraction:
    """W_student - W_base: whole tensors, a UNet's under diffusers' plain names, or compressed as LoRA pairs."""
    extraction = Extraction(rank, 0.0)
    if names:
        for key, dW in names.whole({key: _difference(student, base, key) for key in base}).items():
            extraction.add(key, dW, dtype)
        return extraction
    for key in base:
        dW = _difference(student, base, key)
        extraction.add(_lora_key(key) if rank else key, dW, dtype)
    if not rank:  # the official files have the plain names
        extraction.tensors = dict(zip(base, extraction.tensors.values(), strict=True))
    return extraction


def _lora_key(key: str) -> str:
    """The name of a diffusers UNet's weight in a LoRA file, but for its ending."""
    layer, _, kind = key.rpartition(".")
    return f"{lora_name(layer)}.{kind}"


def _difference(student: Mapping[str, Tensor], base: Mapping[str, Tensor], key: str) -> Tensor:
    return (student[key].float().cpu() - base[key].float()).contiguous()
