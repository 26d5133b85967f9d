"""Small teachers and data, and a configuration that trains on them in seconds."""

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import safetensors.torch
import torch

CAPTIONS = [f"a {thing} {place}" for thing in ("house", "boat", "tree") for place in ("at sea", "on a hill")]


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory) -> Path:
    """SD1.5's kind: noise prediction, context of 768 numbers."""
    from trial.small_teachers import make_teacher

    return make_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def latents_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "latents.safetensors"
    latents = torch.randn(20, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    safetensors.torch.save_file({"latents": latents}, path)
    path.with_suffix(".json").write_text(json.dumps([CAPTIONS[i % len(CAPTIONS)] for i in range(20)]))
    return path


@pytest.fixture
def configuration(teacher_folder, latents_file, tmp_path):
    """The values of a configuration, sections merged into the usual ones."""
    usual: dict[str, Any] = {
        "output": str(tmp_path / "run"),
        "teacher": {"path": str(teacher_folder), "solving_steps": 2},
        "student": {"ema_decay": 0.9},
        "data": {"kind": "latents", "path": str(latents_file), "resolution": 64},
        "cache": {"endpoints": 16, "uses": 2, "teacher_batch": 8, "max_gb": 0.1, "prompts_gb": 0.01},
        "optimizer": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "warm_up": 1},
        "preview": {"every": 0},
        "save": {"every": 100, "precision": "float32"},
    }

    def merged(**changes: Any) -> dict[str, Any]:
        values = deepcopy(usual)
        for key, change in changes.items():
            values[key] = values.get(key, {}) | change if isinstance(change, dict) else change
        return values

    return merged


@pytest.fixture(scope="session")
def load_teacher():
    """`training.teacher.load`, which reads the same files once: loading is a third of a start."""
    from training import teacher

    loaded: dict[Any, teacher.Teacher] = {}

    def load(config: Any, resolution: int) -> Any:
        files = sorted(path for path in Path(config.path).rglob("*") if path.is_file())
        stats = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
        flow = config.shift, config.embedded_guidance, config.text_length
        key = config.path, config.config, config.prediction_type, config.clip_skip, *flow, resolution, stats
        if key not in loaded:
            loaded[key] = teacher.load(config, resolution)
        return deepcopy(loaded[key])  # a run casts it, and puts adapters on it

    return load


@pytest.fixture
def run(configuration, load_teacher, monkeypatch):
    """A run of a configuration, ready to train."""
    import training.run

    monkeypatch.setattr(training.run, "load", load_teacher)

    def make(**changes: Any):
        from accelerate.state import AcceleratorState

        from training.config import parse

        AcceleratorState._reset_state(True)  # each run in this process is a process of its own
        return training.run.Run(parse(configuration(**changes)))

    return make
