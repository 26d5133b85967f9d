"""The benchmarks of the training program on small models, where there may be no GPU."""

import io
import json
import math
import sys

import pytest
from programs import run


@pytest.fixture
def benchmark(repository, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import training_loops
    import training_on_gpu

    monkeypatch.setattr(training_loops, "LONG_ENOUGH", 1e-9)  # one step
    return training_on_gpu


class Here:
    """A case's process, which is this one: it says that it is ready and measures when it may."""

    def __init__(self, command, **_):
        self.command, self.stdout, self.returncode = command, io.StringIO("ready\n"), None

    def communicate(self, line, timeout):
        _, program, *arguments = self.command
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "stdin", io.StringIO(line))
            patched.setattr(sys, "stdout", sys.stdout)  # the case sends what it says to the other stream
            run(patched, program, *arguments)
        self.returncode = 0


def test_both_loops_are_measured(benchmark, monkeypatch, tmp_path, capsys):
    """The whole program, for one case."""
    case, accumulation, noted = "sdxl-lora", 2, []
    measure = benchmark.measure

    def noting(case, small, note):
        measure(case, small, lambda found: (noted.append(dict(found)), note(found)))

    monkeypatch.setenv("PERFLOW_TRAINING", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(benchmark, "measure", noting)
    monkeypatch.setattr(benchmark.subprocess, "Popen", Here)
    run(monkeypatch, "benchmarks/training_on_gpu.py", "--small", "--cases", case, "--results", str(tmp_path))
    assert [len(found.keys() & {"ours", "official", "pictures"}) for found in noted] == [1, 2, 3]
    found = noted[-1]
    assert json.loads((tmp_path / f"{case}.json").read_text()) == json.loads(json.dumps(found))
    assert (found["batch"], found["accumulation"], found["too_large"]) == (4, accumulation, [])
    ours, walk_share = found["ours"], found["ours"]["walk"] / found["ours"]["round"]
    assert ours["samples_per_second"] == pytest.approx(4 * accumulation / (ours["steps"][0] + walk_share))
    assert found["official"]["samples_per_second"] == pytest.approx(4 / found["official"]["steps"][0])
    assert math.isfinite(ours["loss"])
    assert found["pictures"]["seconds"] > 0
    assert capsys.readouterr().out.count(f"| {case} | 4 x {accumulation} |") == 1


def test_half_the_batch_where_memory_is_short(benchmark, monkeypatch):
    import torch

    tried = []

    def loop(run, *_):
        tried.append((run.config.optimizer.batch_size, run.config.optimizer.accumulation))
        if len(tried) < 3:
            raise torch.OutOfMemoryError
        return {}

    monkeypatch.setattr(benchmark, "our_loop", loop)
    monkeypatch.setattr(benchmark, "official_loop", lambda *_: {})
    noted = []
    benchmark.measure("sd15-full", small=True, note=noted.append)
    assert tried == [(4, 1), (2, 2), (1, 4)]
    assert noted[-1]["too_large"] == [4, 2]


def test_a_case_that_is_too_slow_or_fails_is_ended(benchmark):
    import subprocess
    import sys

    def ended(code, seconds=60):
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)
        return benchmark.ending(process, seconds)

    assert ended("print('a warning'); print('ready', flush=True); import time; time.sleep(60)", 0.2).endswith("ended")
    assert ended("print('ready', flush=True); raise SystemExit(1)").startswith("failed")
    assert ended("raise SystemExit(1)") == "could not start"


def test_training_speed(benchmark, monkeypatch, capsys):
    """Both loops take one step a round of a batch of two."""
    import training_speed
    from trial import small_teachers

    monkeypatch.setenv("PERFLOW_TRAINING", "1")
    monkeypatch.setattr(training_speed, "STEPS", 1)
    monkeypatch.setattr(small_teachers, "NARROW", dict(small_teachers.NARROW))  # it changes the model's sizes
    run(monkeypatch, "benchmarks/training_speed.py", "1", "--batch", "2", "--threads", "1")
    assert "ratio: " in capsys.readouterr().out
