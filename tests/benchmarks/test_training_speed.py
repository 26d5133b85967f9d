"""The benchmark of the training program at its smallest size."""

import pytest
from programs import run


def test_training_speed(repository, monkeypatch, capsys):
    """Both loops take one step a round of a batch of two."""
    pytest.importorskip("diffusers")
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import training_speed
    from trial import small_teachers

    monkeypatch.setenv("PERFLOW_TRAINING", "1")
    monkeypatch.setattr(training_speed, "STEPS", 1)
    monkeypatch.setattr(small_teachers, "NARROW", dict(small_teachers.NARROW))  # it changes the model's sizes
    run(monkeypatch, "benchmarks/training_speed.py", "1", "--batch", "2", "--threads", "1")
    assert "ratio: " in capsys.readouterr().out
