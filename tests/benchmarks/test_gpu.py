"""benchmarks/gpu.py at toy size on the CPU: each of its jobs gives numbers, and a process answers for each."""

import json

import gpu
import pytest
import torch
from gpu_checks import jobs, models, returns, steps, worker
from gpu_checks.comfy import Comfy

PIXELS = {"size": "SD1.5", "pixels": 16}


@pytest.fixture(scope="module")
def small(comfyui, tmp_path_factory):
    """ComfyUI with the files of a small SD1.5."""
    import folder_paths

    folder = tmp_path_factory.mktemp("gpu")
    for kind in ("checkpoints", "diffusion_models", "perflow", "loras"):
        folder_paths.add_model_folder_path(kind, str(folder))
    models.make_files(folder, "SD1.5", True, torch.device("cpu"))
    return Comfy(comfyui.nodes, folder, "cpu", False)


@pytest.fixture
def do(small):
    """(job) -> what it found and the lines that it said."""

    def call(job, **inputs):
        said = []
        return jobs.JOBS[job](small, said.append, **inputs), "\n".join(said)

    return call


def test_steps(do, monkeypatch):
    monkeypatch.setattr(steps, "FEW", 4)
    monkeypatch.setattr(steps, "MANY", 6)
    found, said = do("steps", **PIXELS, pairs=2, seconds=0)
    assert found["more"] == {}
    assert found["ratios"]["a step"]["pairs"] == 2
    assert found["seconds_a_step"] > 0
    assert "waits in a step, ours less stock's: none" in said


def test_a_wait_in_each_step_is_counted():
    found = steps.waits_a_step(lambda n: [torch.ones(1).item() for _ in range(n)] and None)
    assert found == {"aten::_local_scalar_dense": 1, "aten::item": 1}


def test_latency(do):
    found, said = do("latency", **PIXELS, batch=2, seconds=0.1)
    (row,) = found["rows"]
    assert row["seconds"] > 0
    assert "25 steps, CFG 7" in said
    assert said.count("the time is up") == 4


def test_memory(do):
    found, _ = do("memory", **PIXELS, rounds=1, seconds=60)
    checks = found["checks"]
    assert checks["finite"]
    assert checks["the plain model returns exactly"]
    assert checks["delta against plain"] > checks["delta against half"] > 0
    assert checks["delta against ModelMergeAdd"] < 1e-3


def test_returns(do):
    """On a CPU, where sums do not depend on where weights lie, the plain model is the same after all of it."""
    found, said = do("returns", **PIXELS)
    assert list(found["between"]) == [
        "nothing",
        "a reload",
        "another model",
        "ModelMergeAdd",
        "Apply PeRFlow Delta",
        "Load LoRA",
    ]
    for name, differs in found["between"].items():
        assert (differs["result"], differs["bits"], differs["casting"], differs["strides"]) == (0, 0, 0, 0), name
    assert said.count("plain, ") == 6


def test_a_changed_bit_is_counted(small):
    model = small.checkpoint("SD1.5")[0].clone()
    before = returns.state(model)
    weight = model.model.diffusion_model.time_embed[0].weight
    with torch.inference_mode():
        kept = weight[0, 0].clone()
        weight[0, 0] = 1.5
        after = returns.state(model)
        weight[0, 0] = kept
    assert returns.changed(before, after) == {"bits": 1, "device": 0, "strides": 0, "casting": 0, "alignment": 0}


def test_hooks(do):
    checks = do("hooks", **PIXELS)[0]["checks"]
    assert checks["hook against the LoRA on the model"] < 1e-3 < checks["hook against no LoRA"]


@pytest.mark.parametrize("rank", [0, 4])
def test_extract(do, rank):
    found, said = do("extract", size="SD1.5", rank=rank)
    assert found["file"] > 0
    assert ("full" if rank == 0 else f"rank {rank}") in said


@pytest.fixture
def program(tmp_path, monkeypatch):
    """(lines) -> a worker whose process is a program of these lines that serves jobs."""

    def start(jobs: str) -> worker.Worker:
        path = tmp_path / "program.py"
        folder = str(worker.__file__).rpartition("gpu_checks")[0]
        lines = ("import sys, time", f"sys.path.append({folder!r})", "from gpu_checks import worker")
        path.write_text("\n".join((*lines, f"worker.serve({jobs}, None)")))
        monkeypatch.setattr("sys.argv", [str(path)])
        started.append(worker.Worker("cpu", tmp_path))
        return started[-1]

    started: list[worker.Worker] = []
    yield start
    for each in started:
        each.close()


def test_a_worker_answers_says_and_fails(program, capsys):
    one = program("{'add': lambda _, say, a, b: (say('adding'), {'sum': a + b})[1]}")
    assert one.ask("add", 60, a=1, b=2) == {"sum": 3}
    assert capsys.readouterr().out == "adding\n"
    assert "KeyError" in one.ask("other", 60)["error"]
    assert one.ask("add", 60, a=2, b=2) == {"sum": 4}


def test_a_job_without_end_is_ended(program):
    one = program("{'wait': lambda *_: time.sleep(600)}")
    with pytest.raises(worker.TooLongError, match="wait in mode cpu was not done in 0 s"):
        one.ask("wait", 0.1)
    assert one.ended
    assert "ended" in one.ask("wait", 60)["error"]


class DyingWorker:
    """Its process ends at the first job; those of other modes answer."""

    def __init__(self, mode, folder):
        self.mode, self.ended, self.asked = mode, False, []

    def ask(self, job, limit, **inputs):
        self.asked.append((job, inputs))
        self.ended = self.mode == "dynamic"
        return {"error": "it ended"} if self.ended else {"rows": []}

    def close(self):
        self.ended = True


def test_the_rest_goes_on_without_a_mode_that_dies(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "Worker", DyingWorker)
    file = tmp_path / "found.json"
    benchmark = gpu.Benchmark(gpu.arguments(["--only", "latency", "--sizes", "SD1.5", "--json", str(file)]), tmp_path)
    benchmark.run()
    assert "in mode dynamic failed: it ended" in capsys.readouterr().out
    assert [job for job, _ in benchmark.workers["normal"].asked] == ["make", "latency", "latency"]
    assert [found["batch"] for found in json.loads(file.read_text())["latency"]] == [1, 4]


def test_what_no_time_is_left_for_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "Worker", DyingWorker)
    gpu.Benchmark(gpu.arguments(["--only", "steps,weights", "--seconds", "0"]), tmp_path).run()
    said = capsys.readouterr().out
    assert said.count("the time is up: extract") == 4
    assert said.count("the time is up: memory") == 2 * 3
    assert said.count("the time is up: returns") == 2 * 2


def test_arguments(capsys):
    assert gpu.arguments(["--only", "weights,steps", "--sizes", "SDXL"]).only == ["steps", "weights"]
    with pytest.raises(SystemExit):
        gpu.arguments(["--only", "all"])
    assert "expected steps, latency, weights" in capsys.readouterr().err
