"""benchmarks/training_on_gpu.py on small models, where there may be no GPU."""

import math

import pytest


@pytest.fixture
def benchmark(repository, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import training_loops
    import training_on_gpu

    monkeypatch.setattr(training_loops, "LONG_ENOUGH", 1e-9)  # one step
    return training_on_gpu


def test_both_loops_are_measured(benchmark, capsys):
    case, accumulation, noted = "sdxl-lora", 2, []
    benchmark.measure(case, small=True, note=lambda found: noted.append(dict(found)))
    assert [len(found.keys() & {"ours", "official", "pictures"}) for found in noted] == [1, 2, 3]
    found = noted[-1]
    assert (found["batch"], found["accumulation"], found["too_large"]) == (4, accumulation, [])
    ours, walk_share = found["ours"], found["ours"]["walk"] / found["ours"]["round"]
    assert ours["samples_per_second"] == pytest.approx(4 * accumulation / (ours["steps"][0] + walk_share))
    assert found["official"]["samples_per_second"] == pytest.approx(4 / found["official"]["steps"][0])
    assert math.isfinite(ours["loss"])
    assert found["pictures"]["seconds"] > 0
    benchmark.print_table(noted)
    assert capsys.readouterr().out.count(f"| {case} | 4 x {accumulation} |") == 3


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
