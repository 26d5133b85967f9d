"""What small_model/measure_quality.py is asked for on the command line."""

import pytest

from small_model import measure_quality


def test_part():
    assert measure_quality.parse([]).part == (1, 1)
    assert measure_quality.parse(["--part", "2/3"]).part == (2, 3)


def test_a_real_model_and_the_flow_model_exclude_one_another(capsys):
    with pytest.raises(SystemExit):
        measure_quality.parse(["--flow", "--checkpoint", "a", "--reference", "b"])
    assert "choose one of them" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "a/b"])
def test_a_part_that_is_none(text, capsys):
    with pytest.raises(SystemExit):
        measure_quality.parse(["--part", text])
    assert "expected I/N" in capsys.readouterr().err
