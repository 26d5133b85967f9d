"""Two processes with the weights in parts: accelerate's FSDP, in the configuration that is shipped."""

import json
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from training_results import read, scalars
from trial.small_flow_teachers import make_flow_teacher
from two_processes import two_processes

from training import sharding
from training.config import parse
from training.stopping import TrainingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_flow_teacher(tmp_path_factory.mktemp("sharded") / "flux", "flux")


@pytest.fixture
def values(configuration, folder, tmp_path):
    """The configuration of a LoRA, which the teacher is sharded with."""
    safetensors.torch.save_file({"latents": torch.randn(8, 16, 8, 8)}, tmp_path / "latents.safetensors")
    (tmp_path / "latents.json").write_text(json.dumps(["a house", "a boat"] * 4))

    def of(output: str, batch: int, steps: int, every: int = 0):
        return configuration(
            output=str(tmp_path / output),
            teacher={"path": str(folder), "solving_steps": 1, "text_length": 16},
            student={"method": "lora", "rank": 2, "ema_decay": 0.0},
            data={"kind": "latents", "path": str(tmp_path / "latents.safetensors"), "resolution": 64},
            cache={"endpoints": 8, "uses": 2, "teacher_batch": 2, "prompts_gb": 0.1, "precision": "float32"},
            optimizer={"steps": steps, "batch_size": batch, "learning_rate": 1e-2, "warm_up": 0},
            preview={"every": every, "student_steps": [4], "teacher_steps": 1, "reference_steps": 1},
        )

    return of


def environment_of(configuration) -> dict[str, str]:
    """What accelerate's launcher gives its processes for a configuration."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(["--config_file", str(configuration), "-m", "training"])
    arguments, *_ = _validate_launch_command(arguments)
    assert (arguments.num_processes, arguments.use_fsdp) == (2, True)
    return prepare_multi_gpu_env(arguments)


def train_as_one_of_two(rank: int, values) -> None:
    """accelerate has FSDP for accelerators alone; this CPU is shown to it as one."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    from training.run import Run

    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    trained = Run(parse(values))
    assert trained.sharded
    trained.train()


def both(values, repository) -> None:
    environment = environment_of(repository / "training" / "configs" / "fsdp.yaml")
    assert two_processes(train_as_one_of_two, values, environment=environment) == [0, 0]


def test_two_processes_with_parts_are_one_with_the_whole(values, run, repository, tmp_path):
    """Losses and the delta, also where it was stopped and a process had written less than the other."""
    alone = run(**values("alone", 4, 5))
    delta, _ = read(alone.train())
    both(values("two", 2, 3, every=3), repository)
    assert scalars(tmp_path / "two")["loss"] == pytest.approx(alone.losses[:3], rel=1e-4)
    rounds = sorted((tmp_path / "two" / "endpoints" / "process-1").glob("round-*/chunk-*"))
    rounds[-1].unlink()
    both(values("two", 2, 5), repository)
    found, _ = read(tmp_path / "two" / "deltas" / "perflow-000005.safetensors")
    largest = max(tensor.abs().max() for tensor in delta.values())
    assert max((found[key] - tensor).abs().max() for key, tensor in delta.items()) < 0.02 * largest


def test_parts_begin_with_a_delta(values, run, repository, tmp_path):
    """Each process takes its part of the same start."""
    first = values("first", 4, 1)
    delta = str(run(**first | {"optimizer": first["optimizer"] | {"learning_rate": 0.05}}).train())
    two = values("two", 2, 1)
    two["student"]["delta"] = delta
    two["optimizer"]["learning_rate"] = 1e-9
    both(two, repository)
    found, metadata = read(tmp_path / "two" / "deltas" / "perflow-000001.safetensors")
    assert metadata["started_from"] == "perflow-000001.safetensors"
    theirs, _ = read(tmp_path / delta)
    for name in (name for name in theirs if "lora_up" in name):
        down = name.replace("lora_up", "lora_down")
        expected = theirs[name] @ theirs[down]
        assert (found[name] @ found[down] - expected).abs().max() <= 1e-3 * expected.abs().max() + 1e-7, name


def test_what_does_not_go_with_it_is_said(configuration):
    from accelerate.utils import DistributedType

    def state(fsdp2: bool = True):
        return SimpleNamespace(distributed_type=DistributedType.FSDP, is_fsdp2=fsdp2)

    averaged = parse(configuration())
    drawn = parse(configuration(student={"method": "lora", "ema_decay": 0.0}, data={"kind": "prompts"}))
    for state_of, config, sentence in (
        (state(fsdp2=False), drawn, "fsdp_version 1"),
        (state(), averaged, r"student\.ema_decay is 0\.9"),
        (state(), drawn, r'data\.kind is "prompts"'),
    ):
        with pytest.raises(TrainingError, match=sentence):
            sharding.check(state_of, config)
