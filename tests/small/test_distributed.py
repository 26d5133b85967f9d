"""Processes that train the small model as one: one start, one gradient, one clock."""

import os
import subprocess
import sys

PROGRAM = """
import sys
from pathlib import Path

import torch
from small_model.trainers import devices
rank = devices.processes().process_index
weights = [torch.zeros(3, requires_grad=True), torch.zeros(2, 2, requires_grad=True), torch.zeros(1)]
for weight in weights[:2]:
    weight.grad = torch.full_like(weight, float(rank + 1))
devices.average_gradients(weights)
devices.processes().wait_for_everyone()
begun = torch.full((2, 3, 2, 2), rank + 7.0).to(memory_format=torch.channels_last)
devices.broadcast([begun])
found = [float(weight.grad.mean()) for weight in weights[:2]]
said = f"{found} {devices.mean(10.0 * rank)} {begun.mean()}"
Path(sys.argv[1], f"{rank}.txt").write_text(said)
devices.processes().destroy_process_group()
"""


def test_two_processes_get_the_mean(tmp_path, repository):
    (tmp_path / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    command = [*launch, str(tmp_path / "program.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"{number}.txt").read_text() for number in (0, 1)] == ["[1.5, 1.5] 5.0 7.0"] * 2


def test_one_process_keeps_what_it_has():
    from small_model.trainers import devices

    assert devices.mean(3.0) == 3.0
