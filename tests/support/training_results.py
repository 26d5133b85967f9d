"""Reading what a training run leaves."""

from pathlib import Path

import safetensors
import torch
from torch import Tensor


def scalars(output: Path | str) -> dict[str, list[float]]:
    """What tensorboard shows of the run in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(f"{output}/tensorboard").Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def sheets_shown(output: Path | str) -> list[int]:
    """The steps of the previews that tensorboard shows of the run in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.step for event in EventAccumulator(f"{output}/tensorboard").Reload().Images("preview")]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file."""
    with safetensors.safe_open(str(path), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def everything(trained) -> dict[str, torch.Tensor]:
    """Weights, averages and the optimizer's state."""
    found = dict(trained.unet.named_parameters())
    found |= {f"ema {i}": weight for i, weight in enumerate(trained.ema.shadow_params)}
    for i, state in enumerate(trained.optimizer.state_dict()["state"].values()):
        found |= {f"{name} {i}": torch.as_tensor(value) for name, value in state.items()}
    return found


def assert_same(one, other) -> None:
    left, right = everything(one), everything(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
