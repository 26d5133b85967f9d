"""The programs that need no ComfyUI, at their smallest size."""

import pytest
from programs import run


def test_draw_method(monkeypatch, tmp_path):
    import draw_method

    monkeypatch.setattr(draw_method, "FOLDER", tmp_path)
    run(monkeypatch, "scripts/draw_method.py")
    for name in ("method", "method-flow"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_lock(monkeypatch, tmp_path):
    """With lists of nothing, which need no package index."""
    import environment
    import lock

    for name in ("uv.in", "page.in", "training.in"):
        (tmp_path / name).write_text("# nothing\n")
    monkeypatch.setattr(lock, "LOCKS", tmp_path)
    monkeypatch.setattr(lock, "TRAINING", tmp_path / "training.in")
    monkeypatch.setattr(environment, "VERSIONS", {})
    run(monkeypatch, "scripts/lock.py")
    assert {path.name for path in tmp_path.glob("*.txt")} == {"uv.txt", "page.txt", "training.txt"}


def test_train(monkeypatch, tmp_path, capfd):
    """It starts the training program, here with this environment's packages; that one says what is wrong."""
    import sys

    import train

    pytest.importorskip("accelerate")
    monkeypatch.setattr(train, "locked_environment", lambda lock_file: sys.executable)
    config = tmp_path / "config.toml"
    config.write_text("output = 1\n")
    assert run(monkeypatch, "scripts/train.py", str(config)) == 1
    assert "Error: " in capfd.readouterr().err
    assert run(monkeypatch, "scripts/train.py", "--help") == 0
