"""The program that puts the small model into a user's ComfyUI, by that ComfyUI's own Python."""

import pytest
from programs import run
from user_cache import UserError

PROGRAM = "scripts/install_small_model.py"


@pytest.fixture
def installed(comfyui, comfyui_path, monkeypatch, tmp_path, capfd):
    """What it says; the delta alone, since the checkpoint is 588 MB."""
    from trial.small_models import tables

    delta_alone = {tables.TRAINED_DELTA: tables.make_trained_delta}
    monkeypatch.setitem(tables.TABLES, "trained", lambda _: delta_alone)
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui_path))
    monkeypatch.setenv("PERFLOW_COMFYUI", str(comfyui_path))  # which it sets, and the tests use

    def of(folder=tmp_path):
        run(monkeypatch, PROGRAM, str(folder))
        return capfd.readouterr().out

    return of


def test_files_are_written_once(installed, tmp_path, core):
    file = tmp_path / "perflow" / "drawn-scenes-perflow.safetensors"
    assert f"{file} (337 MB)" in installed()
    found = core("weights.weights_file").inspect(file)
    assert (found.kind, found.family, found.metadata["guidance"]) == ("difference", "SD1.5", "cfg_sync")
    before = file.stat()
    assert f"{file} is there already and stays as it is." in installed()
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_what_is_missing_is_said(installed, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"There is no folder .*gone: give the folder models"):
        installed(tmp_path / "gone")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(UserError, match="set COMFYUI_PATH to the folder of your ComfyUI"):
        installed()
