"""The program as users start it: two processes together, and one sentence for an error."""

import os
import subprocess
import sys

import pytest
from training_results import read, scalars

from training.__main__ import main

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
