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
    stored = ("autoencoder", "delta", "teacher", "classifier", "flow_teacher", "flow_autoencoder")
    weights = [f"weights/{name}.safetensors" for name in stored]
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


@pytest.mark.parametrize(
    ("changed", "made_anew"),
    [
        ("networks/widen.py", {"trained", "trained_flow"}),
        ("weights/teacher.safetensors", {"trained"}),
        ("weights/flow_teacher.safetensors", {"trained_flow"}),
        ("weights/flow_delta.safetensors", {"trained_flow"}),  # which comes later than the others
    ],
)
@pytest.mark.parametrize("table", ["trained", "trained_flow", "graphs"])
def test_a_trained_model_is_made_anew_after_training(makers, tmp_path, table, changed, made_anew):
    first = cached_models.folder(table, tmp_path)
    (tmp_path / "small_model" / changed).write_text("2")
    assert (cached_models.folder(table, tmp_path) != first) == (table in made_anew)
    assert len(makers) == 1 + (table in made_anew)


def test_weights_that_are_not_stored_yet_are_in_no_way(makers, tmp_path):
    (tmp_path / "small_model/weights/flow_teacher.safetensors").unlink()
    folders = [cached_models.folder(table, tmp_path) for table in ("trained", "trained_flow")]
    assert [folder.name.rpartition("-")[0] for folder in folders] == ["trained", "trained_flow"]


@pytest.mark.parametrize("changed", ["trainers/muon.py", "weights/classifier.safetensors"])
def test_what_its_files_do_not_depend_on_makes_nothing_anew(makers, tmp_path, changed):
    first = cached_models.folder("trained", tmp_path)
    (tmp_path / "small_model" / changed).write_text("2")
    assert cached_models.folder("trained", tmp_path) == first


def test_a_failure_is_told(makers, tmp_path, monkeypatch):
    monkeypatch.setattr(cached_models.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(UserError, match="The small models could not be made"):
        cached_models.folder("trained", tmp_path)
