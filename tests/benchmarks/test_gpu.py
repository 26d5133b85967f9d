"""benchmarks/gpu.py at toy size on the CPU: each measurement gives numbers, and an error ends none of the others.

The program itself, with the steps, is in test_programs.py.
"""

import full_size
import gpu
import gpu_measurements
import pytest
import torch
from gpu_comfyui import Comfy

SIZE, PIXELS = "SD1.5", 16


@pytest.fixture(scope="module")
def small(comfyui, tmp_path_factory):
    """ComfyUI with the files of a small SD1.5."""
    folder = tmp_path_factory.mktemp("gpu")
    full_size.make_files(folder, SIZE, True, torch.device("cpu"))
    return Comfy(comfyui.nodes, folder, "cpu", False)


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def test_a_wait_in_each_step_is_counted():
    found = gpu_measurements.waits_a_step(lambda n: [torch.ones(1).item() for _ in range(n)] and None)
    assert found == {"aten::_local_scalar_dense": 1, "aten::item": 1}


def test_latency(small, monkeypatch):
    monkeypatch.setattr(gpu_measurements, "ENOUGH", 0.01)  # one run of each
    monkeypatch.setattr(gpu_measurements, "WAYS", ((False, 2, 7.0), (True, 4, 1.0)))
    rows = gpu_measurements.latency(small, SIZE, PIXELS)["rows"]
    assert [(row["batch"], len(row["seconds"])) for row in rows] == [(1, 1), (1, 1), (4, 1), (4, 1)]
    assert "2 steps, CFG 7" in rows[0]["way"]


def test_returns(small):
    """On a CPU, where sums do not depend on where weights lie, the plain model is the same after all of it."""
    between, checks = gpu_measurements.returns(small, SIZE, PIXELS).values()
    patches = ["another model", "ModelMergeAdd", "Apply PeRFlow Delta", "Apply PeRFlow Delta at 0.5", "Load LoRA"]
    assert list(between) == ["nothing", "a reload", *patches]
    for name, differs in between.items():
        assert (differs["result"], differs["bits"], differs["casting"], differs["strides"]) == (0, 0, 0, 0), name
    assert checks["finite"]
    assert checks["delta against plain"] > checks["delta against half"] > 0
    assert checks["delta against ModelMergeAdd"] < 1e-3


def test_a_changed_bit_is_counted(small):
    model = small.checkpoint(SIZE)[0].clone()
    before = dict(gpu_measurements.state(model))
    weight = model.model.diffusion_model.time_embed[0].weight
    first = weight[0, 0].clone()
    weight[0, 0] = 1.5
    after = dict(gpu_measurements.state(model))
    weight[0, 0] = first
    counts = {"bits": 1, "device": 0, "strides": 0, "casting": 0, "alignment": 0}
    assert gpu_measurements.changed(before, after) == counts


def test_an_error_is_a_finding(small, monkeypatch, capsys):
    def failing(*_):
        raise MemoryError("too large")

    chosen = {"parts": ["latency", "returns"], "sizes": [SIZE], "modes": ["cpu"], "small": True}
    monkeypatch.setattr(gpu_measurements, "MEASUREMENTS", {"latency": failing, "returns": lambda *_: {"between": {}}})
    found = gpu.measured(small, chosen)
    assert found["latency, SD1.5"] == {"error": "MemoryError: too large"}
    assert found["returns, SD1.5"] == {"between": {}}
    assert "failed: MemoryError: too large" in capsys.readouterr().out


def test_what_the_first_mode_alone_measures(small, monkeypatch):
    asked = []
    monkeypatch.setattr(
        gpu_measurements, "MEASUREMENTS", dict.fromkeys(gpu.PARTS, lambda _, *what: asked.append(what) or {})
    )
    chosen = {"parts": gpu.PARTS, "sizes": ["SD1.5", "SDXL"], "modes": ["dynamic", "cpu"], "small": False}
    assert {name.partition(",")[0] for name in gpu.measured(small, chosen)} == {"returns"}
    assert asked == [("SD1.5", 512), ("SDXL", 1024)]
    gpu.measured(small, chosen | {"modes": ["cpu"]})
    assert len(asked) == 2 + 1 + 2 * 2


def test_arguments(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py", "returns", "--small"])
    assert gpu.arguments() | {} == gpu.arguments()
    assert gpu.arguments()["modes"] == ["cpu"]
    monkeypatch.setattr("sys.argv", ["gpu.py", "all"])
    with pytest.raises(SystemExit):
        gpu.arguments()
    assert "expected steps, latency, returns" in capsys.readouterr().err
