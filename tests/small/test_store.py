"""What is known of pictures survives a stop, and grows."""

import pytest
import torch

from small_model.quality.store import Store


def judged(numbers: range) -> dict[str, torch.Tensor]:
    return {
        "features": torch.arange(numbers.start, numbers.stop).float()[:, None],
        "named": torch.ones(len(numbers), 2),
    }


def test_a_stopped_cell_goes_on_where_it_was(tmp_path):
    first, second, third = Store(tmp_path / "cell", 4).missing(10)
    Store(tmp_path / "cell", 4).keep(second, judged(second))
    again = Store(tmp_path / "cell", 4)
    assert list(again.missing(10)) == [first, third] == [range(4), range(8, 10)]
    for numbers in again.missing(10):
        again.keep(numbers, judged(numbers))
    assert not list(again.missing(10))
    assert again.read(10)["features"].flatten().tolist() == list(range(10))


def test_more_pictures_keep_what_is_there(tmp_path):
    store = Store(tmp_path, 4)
    for numbers in store.missing(6):
        store.keep(numbers, judged(numbers))
    assert list(store.missing(12)) == [range(4, 8), range(8, 12)]


def test_a_half_written_file_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    store = Store(tmp_path, 4)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.keep(range(4), judged(range(4)))
    assert list(store.missing(4)) == [range(4)]
