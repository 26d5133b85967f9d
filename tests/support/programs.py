"""Runs a program inside the test process, which has the packages and a ComfyUI already."""

import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# What runs each program; test_programs.py counts that none is missing.
RUN_BY = {
    "benchmarks/flow_memory.py": "benchmarks/test_programs.py",
    "benchmarks/gpu.py": "benchmarks/test_programs.py",
    "benchmarks/overhead.py": "benchmarks/test_programs.py",
    "benchmarks/prompt_to_prompt.py": "benchmarks/test_programs.py",
    "benchmarks/training_memory.py": "benchmarks/test_programs.py",
    "benchmarks/training_speed.py": "benchmarks/test_training_speed.py",
    "benchmarks/weights.py": "benchmarks/test_programs.py",
    "scripts/demo.py": "through_server/test_demo.py",
    "scripts/describe_nodes.py": "through_server/test_programs_with_a_server.py",
    "scripts/draw_graphs.py": "through_server/test_programs_with_a_server.py",
    "scripts/draw_method.py": "core/test_programs_alone.py",
    "scripts/draw_thumbnails.py": "through_server/test_programs_with_a_server.py",
    "scripts/install_small_model.py": "in_comfyui/test_install_small_model.py",
    "scripts/lock.py": "core/test_programs_alone.py",
    "scripts/screenshots.py": "browser/test_screenshots.py",
    "scripts/train.py": "core/test_programs_alone.py",
    "small_model/choose_prompts.py": "through_server/test_programs_with_a_server.py",
    "small_model/draw_gallery.py": "through_server/test_programs_with_a_server.py",
    "small_model/draw_quality.py": "small/test_programs.py",
    "small_model/learning_curve.py": "small/test_programs.py",
    "small_model/measure_quality.py": "small/test_programs.py",
    "small_model/trainers/export.py": "small/test_training_on.py",
    "small_model/trainers/pack.py": "small/test_trainers.py",
    "small_model/trainers/restore.py": "small/test_trainers.py",
    "small_model/trainers/train_autoencoder.py": "small/test_trainers.py",
    "small_model/trainers/train_classifier.py": "small/test_trainers.py",
    "small_model/trainers/train_flow.py": "small/test_trainers.py",
    "small_model/trainers/train_style.py": "small/test_trainers.py",
    "small_model/trainers/train_teacher.py": "small/test_trainers.py",
}
THE_RUN_ITSELF = {"scripts/test.py"}


def run(monkeypatch, program: str, *arguments: str):
    """Its main() with these arguments; returns what main() returns."""
    path = REPOSITORY / program
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    return module_of(monkeypatch, path).main()


def module_of(monkeypatch, path: Path):
    """The program as a module, until the test ends: tests/support has modules with the names of some programs."""
    known = sys.modules.get(path.stem)
    if known and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module
