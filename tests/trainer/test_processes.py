"""The program as users start it: two processes together, also killed, and one sentence for an error."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest
import torch
from training_results import read, scalars
from two_processes import two_processes

from training.__main__ import LOST, main
from training.config import TeacherConfig
from training.output import LOCKS

TOML = """
output = "{output}"
[teacher]
path = "{teacher}"
solving_steps = 2
[student]
ema_decay = 0.9
[data]
kind = "latents"
path = "{latents}"
resolution = 64
[cache]
endpoints = 16
uses = 2
teacher_batch = 8
max_gb = 0.1
prompts_gb = 0.01
precision = "float32"
[optimizer]
steps = 5
batch_size = {batch}
learning_rate = 1e-3
warm_up = 1
[preview]
every = 0
[save]
every = 100
precision = "float32"
"""


def test_two_processes_are_one_with_twice_the_batch(run, teacher_folder, latents_file, tmp_path, repository):
    """Losses by step, and the place in the data, of two processes."""
    alone = run(cache={"precision": "float32"}, optimizer={"steps": 5, "batch_size": 8})
    delta, _ = read(alone.train())
    config = tmp_path / "two.toml"
    config.write_text(TOML.format(output=tmp_path / "two", teacher=teacher_folder, latents=latents_file, batch=4))
    # accelerate's own launcher starts one process where there is no GPU; torchrun is what it calls where there are.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "training"]
    done = subprocess.run(
        [*launch, str(config)], cwd=repository, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert scalars(tmp_path / "two")["loss"] == pytest.approx(alone.losses, rel=1e-4)
    both, _ = read(tmp_path / "two" / "deltas" / "perflow-000005.safetensors")
    largest = max(dW.abs().max() for dW in delta.values())
    assert max((both[key] - dW).abs().max() for key, dW in delta.items()) < 0.02 * largest
    assert (tmp_path / "two" / "endpoints" / "process-1").is_dir()


def train_as_one_of_two(rank: int, config, killed: int, at: str) -> None:
    """The program; process `killed` has SIGKILL in its fourth step, or in the state after that one."""
    from training import state
    from training.run import Run

    step, save = Run._one_step, state.save

    def killed_in_the_step(run):
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(run)

    def killed_in_the_state(accelerator, config, facts, number, place):
        if number == 4:
            accelerator.save_state = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        save(accelerator, config, facts, number, place)

    if rank == killed and at == "a step":
        Run._one_step = killed_in_the_step
    if rank == killed and at == "a state":
        state.save = killed_in_the_state
    sys.argv = ["training", str(config)]
    main()


def test_one_of_two_processes_is_killed(run, load_teacher, teacher_folder, latents_file, tmp_path, capfd):
    """It goes on bit for bit, once no process of it lives on; the other one says a sentence."""
    load_teacher(TeacherConfig(path=str(teacher_folder)), 64)

    def configured(name):
        text = TOML.format(output=tmp_path / name, teacher=teacher_folder, latents=latents_file, batch=4)
        (tmp_path / f"{name}.toml").write_text(text.replace("every = 100", "every = 2"))
        return tmp_path / f"{name}.toml"

    assert two_processes(train_as_one_of_two, configured("straight"), -1, "") == [0, 0]
    config = configured("killed")
    capfd.readouterr()
    for killed, at in ((1, "a step"), (0, "a state")):
        codes = two_processes(train_as_one_of_two, config, killed, at)
        assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, 1)
        said = capfd.readouterr().err
        assert LOST in said
        assert "Traceback" not in said
        assert "Error" not in said
    with (tmp_path / "killed" / LOCKS.format(1)).open("w") as lock:  # as one that lives on has it
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert two_processes(train_as_one_of_two, config, -1, "") == [1, 1]
    assert (
        f"Error: Another run is writing into {tmp_path / 'killed'}: wait until it has ended" in capfd.readouterr().err
    )
    assert two_processes(train_as_one_of_two, config, -1, "") == [0, 0]
    assert "Continuing from step 2, " in capfd.readouterr().err
    for name in (
        "deltas/perflow-000002",
        "deltas/perflow-000004",
        "deltas/perflow-000005",
        "states/step-00000005/model",
    ):
        (one, facts), (other, same) = (read(tmp_path / of / f"{name}.safetensors") for of in ("straight", "killed"))
        assert facts == same
        assert all(torch.equal(one[key], other[key]) for key in one.keys() | other.keys()), name


def test_the_program_says_one_sentence(tmp_path, repository):
    done = subprocess.run(
        [sys.executable, "-m", "training", str(tmp_path / "none.toml")], cwd=repository, capture_output=True
    )
    assert done.returncode == 1
    assert done.stderr.decode().startswith("Error: ")
    assert len(done.stderr.decode().splitlines()) == 1


def test_stopped_before_anything_has_begun(monkeypatch):
    """Ctrl-C in the first seconds, which importing libraries takes."""

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.config.read", interrupted)
    monkeypatch.setattr(sys, "argv", ["training", "some.toml"])
    with pytest.raises(SystemExit, match=r"^Stopped\. Run the same command again to continue from here\.$"):
        main()
