"""The programs that need no ComfyUI, at their smallest size."""

import sys

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


CONFIG = """
output = "run"
[teacher]
path = "."
[data]
kind = "folder"
path = "."
[optimizer]
steps = 1
batch_size = 0
"""


def test_train(monkeypatch, tmp_path, capfd):
    """It starts the training program, here with this environment's packages; that one says what is wrong."""
    import train

    pytest.importorskip("accelerate")
    monkeypatch.setattr(train, "locked_environment", lambda lock_file: sys.executable)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    assert run(monkeypatch, "scripts/train.py", "--plan", str(config)) == 1  # and not to accelerate
    assert "batch_size is 0" in capfd.readouterr().err
    assert run(monkeypatch, "scripts/train.py", "--help") == 0


def test_train_takes_options_on_both_sides_of_the_configuration():
    from train import split
    from user_cache import UserError

    for words in (["--multi_gpu", "--num_processes", "2", "a.toml"], ["a.toml", "--multi_gpu", "--num_processes", "2"]):
        assert split(words) == (["--multi_gpu", "--num_processes", "2"], "a.toml")
    assert split(["--multi_gpu", "a.toml", "--num_processes", "2"])[1] == "a.toml"
    assert split(["mine"]) == ([], "mine")
    assert split(["mine", "--num_processes", "2"]) == (["--num_processes", "2"], "mine")
    assert split(["--config_file", "acc.toml", "a.TOML"]) == (["--config_file", "acc.toml"], "a.TOML")
    with pytest.raises(UserError, match="--multi_gpu names no configuration"):
        split(["--multi_gpu"])
    with pytest.raises(UserError, match=r"names no configuration, expected one \.toml file: add its path"):
        split(["--config_file", "acc.toml"])
    with pytest.raises(UserError, match=r"names a\.toml and b\.toml, expected one \.toml file: give one of them"):
        split(["a.toml", "b.toml"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no reader of TOML")
@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "steps = 1",
            "step = 1",
            r"optimizer\.step is not a configuration key, use steps; optimizer\.steps is missing",
        ),
        ("[data]", "[colour]\n[data]", "colour is not a configuration key, remove it"),
        ('path = "."', 'path = "none"', r"teacher\.path is none, which is not there; data\.path is none"),
        ("[data]", "[data", r"is not valid TOML .*line 5"),
        ("[data]", '[student]\ndelta = "none"\n[data]', r"student\.delta is none, which is not there"),
        ("[data]", "[[save]]\n[data]", r"save is \[\{\}\], expected a section: write its keys below \[save\]"),
        ("[data]", "[[data]]", r"data is \[\{.*\}\], expected a section: write its keys below \[data\]"),
        ("batch_size = 0", "", r"optimizer\.batch_size is missing, add it"),
    ],
)
def test_a_configuration_is_checked_before_anything_is_installed(monkeypatch, tmp_path, old, new, sentence):
    import train
    from user_cache import UserError

    def installed(lock_file):
        raise AssertionError

    monkeypatch.setattr(train, "locked_environment", installed)
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.replace(old, new), encoding="utf-8-sig")
    with pytest.raises(UserError, match=sentence) as error:
        run(monkeypatch, "scripts/train.py", "config.toml")
    assert str(error.value).endswith(".")
    with pytest.raises(UserError, match=r"none\.toml cannot be read \(No such file"):
        run(monkeypatch, "scripts/train.py", "none.toml")


def test_the_check_passes_what_the_program_takes(repository):
    """Of the shipped configurations only the paths are not there."""
    from config_check import check
    from user_cache import UserError

    for path in (repository / "training" / "configs").glob("*.toml"):
        with pytest.raises(UserError) as error:
            check(path)
        assert all("which is not there" in sentence for sentence in str(error.value).split(": ")[-1].split("; "))
