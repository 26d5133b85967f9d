"""The small models in the cache: made in a process of their own, and anew when what decides their contents changes."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from environment import UserError
from trial import cached_models


@pytest.fixture
def makers(monkeypatch, tmp_path):
    """What is run to make models; it makes none. The sources and ComfyUI are a file each."""
    commands = []

    def run(command, cwd, env):
        commands.append(command)
        assert env["PERFLOW_COMFYUI"] == str(tmp_path)
        folder = Path(command[-1])
        folder.mkdir(parents=True)
        (folder / "complete").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setenv("PERFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cached_models, "SOURCES", tmp_path)
    monkeypatch.setattr(cached_models, "TRAINED", tmp_path / "small_model")
    monkeypatch.setattr(cached_models.subprocess, "run", run)
    (tmp_path / "weights.py").write_text("seed = 1")
    (tmp_path / "comfyui_version.py").write_text("1")
    weights = [f"weights/{name}.safetensors" for name in ("autoencoder", "delta", "teacher", "classifier")]
    for name in ("networks/widen.py", "trainers/muon.py", *weights):
        (tmp_path / "small_model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "small_model" / name).write_text("1")
    return commands


@pytest.mark.parametrize("table", ["trained", "graphs"])
def test_made_by_another_python(makers, tmp_path, table):
    """ComfyUI reads its arguments when it is imported, and this process may need it with others."""
    folder = cached_models.folder(table, tmp_path)
    assert makers == [[sys.executable, "-m", "trial.cached_models", table, str(folder)]]


@pytest.mark.parametrize("changed", ["weights.py", "comfyui_version.py"])
@pytest.mark.parametrize("table", ["trained", "graphs"])
def test_made_anew_after_a_change(makers, tmp_path, table, changed):
    first = cached_models.folder(table, tmp_path)
    assert cached_models.folder(table, tmp_path) == first
    assert len(makers) == 1
    (tmp_path / changed).write_text("2")
    assert cached_models.folder(table, tmp_path) != first
    assert len(makers) == 2


@pytest.mark.parametrize("changed", ["networks/widen.py", "weights/teacher.safetensors"])
@pytest.mark.parametrize(("table", "times"), [("trained", 2), ("graphs", 1)])
def test_the_trained_model_is_made_anew_after_training(makers, tmp_path, table, times, changed):
    first = cached_models.folder(table, tmp_path)
    (tmp_path / "small_model" / changed).write_text("2")
    assert (cached_models.folder(table, tmp_path) != first) == (times == 2)
    assert len(makers) == times


@pytest.mark.parametrize("changed", ["trainers/muon.py", "weights/classifier.safetensors"])
def test_what_its_files_do_not_depend_on_makes_nothing_anew(makers, tmp_path, changed):
    first = cached_models.folder("trained", tmp_path)
    (tmp_path / "small_model" / changed).write_text("2")
    assert cached_models.folder("trained", tmp_path) == first


def test_a_failure_is_told(makers, tmp_path, monkeypatch):
    monkeypatch.setattr(cached_models.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(UserError, match="The small models could not be made"):
        cached_models.folder("trained", tmp_path)
