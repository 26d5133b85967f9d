"""Configurations: what is shipped can be read, and each mistake is named."""

import pytest

from training.config import parse, read
from training.stopping import TrainingError


def test_the_shipped_ones_can_be_read(repository):
    paths = sorted((repository / "training" / "configs").glob("*.toml"))
    assert [path.stem for path in paths] == ["sd15", "sd21", "sdxl", "small"]
    for path in paths:
        config = read(path)
        assert config.optimizer.steps >= 1000
        assert config.student.windows == 4


MISTAKES = [
    ({"optimizer": {"learnin_rate": 1}}, "optimizer.learnin_rate is not a configuration key, use learning_rate"),
    ({"colour": 1}, "colour is not a configuration key, remove it"),
    ({"optimizer": {"batch_size": 0}}, "optimizer.batch_size is 0, input should be greater than or equal to 1"),
    ({"optimizer": {"batch_size": "4"}}, "optimizer.batch_size is '4', input should be a valid integer"),
    ({"student": {"windows": 0}}, "student.windows is 0, input should be greater"),
    ({"student": {"prediction_type": "eps"}}, "student.prediction_type is 'eps', input should be 'auto'"),
    ({"data": {"kind": "video"}}, "data.kind is 'video', input should be 'folder', 'webdataset'"),
    ({"data": {"prompt_dropout": 1.5}}, "data.prompt_dropout is 1.5, input should be less than or equal to 1"),
    ({"teacher": {"guidance": "much"}}, "teacher.guidance is 'much'"),
    ({"save": {"name": "a/b"}}, "save.name is 'a/b'"),
]


@pytest.mark.parametrize(("change", "sentence"), MISTAKES)
def test_mistakes_are_named(configuration, change, sentence):
    with pytest.raises(TrainingError) as error:
        parse(configuration(**change), "mine.toml")
    assert str(error.value).startswith("mine.toml: ")
    assert sentence in str(error.value)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_what_is_missing_is_named(configuration):
    values = configuration()
    del values["optimizer"]["steps"]
    with pytest.raises(TrainingError, match=r"optimizer\.steps is missing"):
        parse(values)


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(TrainingError, match=r"none\.toml cannot be read \(No such file"):
        read(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("output = 1 2\n")
    with pytest.raises(TrainingError, match=r"bad\.toml is not valid TOML .*line 1"):
        read(tmp_path / "bad.toml")
