"""States to continue from: written beside the last good one, which makes room only when the new one is complete."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import safetensors
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from .config import Config
from .made_with import Facts, differences, digest
from .stopping import TrainingError, of_a_lost_process

# What may change between a run and its continuation; everything else would make it another run.
FREE = {
    "output", "teacher.path", "teacher.config", "student.delta",  # what lies there has digests
    "optimizer.steps", "optimizer.learning_rate", "optimizer.precision", "optimizer.channels_last",
    "student.gradient_checkpointing", "student.ema_on", "cache.max_gb", "cache.prompts_gb", "cache.prompts_memory_gb",
    "data.latents_gb", "validation.every",
}  # fmt: skip
FREE_SECTIONS = ("preview.", "save.", "tracking.")
NOTE = "run.json"
BROKEN = OSError, ValueError  # what reading a file that was cut off may raise


def last(config: Config) -> Path | None:
    """The newest complete state."""
    found = [path for _, path in numbered(_folder(config), "step") if (path / NOTE).is_file()]
    return found[-1] if found else None


def save(accelerator: Accelerator, config: Config, facts: Facts, step: int, place: list[str]) -> None:
    """Write the state after `step` steps, unless it is there; facts: the run's; place: each process' in its source."""
    target = _folder(config) / f"step-{step:08}"
    if (target / NOTE).is_file():  # a run stopped again where it had stopped, or stopped before its next step
        return
    unfinished = _folder(config) / "unfinished"
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(unfinished))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            note = {"step": step, "made_with": facts, "place": place}
            (unfinished / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)  # without its note it is no state
            unfinished.rename(target)
            for path in _to_delete(config, step):
                shutil.rmtree(path, ignore_errors=True)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        if of_a_lost_process(error):
            raise
        shutil.rmtree(unfinished, ignore_errors=True)
        good = last(config)
        kept = f"the last good one, {good}, stays" if good else "there is none yet"
        raise TrainingError(
            f"The state after step {step} cannot be written ({error}); {kept}: free disk space and start again."
        ) from error
    accelerator.wait_for_everyone()


def save_only_the_adapter(accelerator: Accelerator) -> None:
    """States of a LoRA hold the adapter, not the UNet that it sits on."""

    def save(models: list[Any], weights: list[dict[str, Tensor]], folder: str) -> None:
        if weights:
            kept = {name for name, parameter in models[0].named_parameters() if parameter.requires_grad}
            kept = {name.removeprefix("module.") for name in kept}
            weights[0] = {key: weight.contiguous() for key, weight in weights[0].items() if key in kept}

    def restore(models: list[Any], folder: str) -> None:
        if not models:  # FSDP has brought its parts back
            return
        model = accelerator.unwrap_model(models.pop())
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=False)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(restore)


def of_this_run(config: Config, facts: Facts) -> Path | None:
    """The newest complete state; facts: the run's. Raises TrainingError where another run left it."""
    path = last(config)
    if path is None:
        return None
    then, now = _fixed(_note(path).get("made_with", {})), _fixed(facts)
    others = sorted(then.keys() ^ now.keys())
    if others:
        raise TrainingError(
            f"{path} was written by another version of this program, in which {len(others)} facts differ, such as "
            f"{others[0]}: go on with that version, or choose another output for a new run."
        )
    changed = differences(then, now)
    if changed:
        raise TrainingError(
            f"{path} was made with {changed}: set it back to continue, or choose another output for a new run."
        )
    return path


def _to_delete(config: Config, step: int) -> list[Path]:
    """All states but the last ones; those past `step` are of a time that is left behind."""
    found = numbered(_folder(config), "step")
    kept = [path for number, path in found if number <= step][-config.save.keep_states :]
    return [path for _, path in found if path not in kept]


def identity(facts: Facts) -> str:
    """What all files of a run and its continuations have in common, and no other run's."""
    return digest([sorted(_fixed(facts).items())])


def load(accelerator: Accelerator, path: Path) -> tuple[int, list[str]]:
    """Bring everything back to what it was; the steps done and the places. Raises TrainingError."""
    note = _note(path)
    try:
        accelerator.load_state(str(path))
    except torch.OutOfMemoryError:
        raise
    except (*BROKEN, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        if of_a_lost_process(error):
            raise
        raise _unreadable(path, path, error) from error
    return note["step"], note["place"]


def numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    """The entries called prefix-NUMBER in a folder, lowest first."""
    found = ((path.name.removeprefix(f"{prefix}-"), path) for path in folder.glob(f"{prefix}-*"))
    return sorted((int(number), path) for number, path in found if number.isdecimal())


def _folder(config: Config) -> Path:
    return Path(config.output) / "states"


def _note(path: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads((path / NOTE).read_text(encoding="utf-8"))
    except BROKEN as error:
        raise _unreadable(path, path / NOTE, error) from error
    return note


def _unreadable(path: Path, what: Path, error: Exception) -> TrainingError:
    """The sentence for a state, or a file of it."""
    older = [state for _, state in numbered(path.parent, "step") if state.name < path.name and (state / NOTE).is_file()]
    go_on = f"go on from {older[-1]}" if older else "begin again"
    reason = " ".join(str(error).split()) or type(error).__name__
    return TrainingError(f"{what} cannot be read ({reason}): delete {path} to {go_on}, or choose another output.")


def _fixed(facts: Facts) -> Facts:
    """Those that may not change."""
    return {key: value for key, value in facts.items() if key not in FREE and not key.startswith(FREE_SECTIONS)}


def match_memory_layout(optimizer: torch.optim.Optimizer) -> None:
    """Averages in the memory layout of the weights, which AdamW's fused kernel needs and channels_last changes."""
    for parameter, averages in optimizer.state.items():
        for name, value in averages.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                averages[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
