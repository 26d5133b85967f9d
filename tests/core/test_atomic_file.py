"""Files are written whole or not at all, never over another, and nobody sees an unfinished one under its name."""

import json
import os
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from perflow_core.atomic_file import atomic_write, new_file, take_name
from perflow_core.weights.safetensors_writer import SafetensorsWriter, header_room, write_new

ONE = {"a": torch.ones(2)}


def numbered(folder):
    return (folder / f"delta_{number}_.safetensors" for number in range(1, 100))


@contextmanager
def opened(folder, room=1000):
    """A writer of the first of `numbered` that is free at the end."""
    with new_file(folder / "delta_1_.safetensors") as file:
        yield SafetensorsWriter(file, numbered(folder), room)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_written_whole(tmp_path):
    path = write_new(ONE, tmp_path / "delta.safetensors", {"windows": "4"})
    assert torch.equal(load_file(str(path))["a"], torch.ones(2))
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata() == {"windows": "4"}
    assert names(tmp_path) == ["delta.safetensors"]


def test_an_older_file_makes_room_when_the_new_one_is_complete(tmp_path):
    path = tmp_path / "folder" / "notes.json"
    for text in ("old", "new"):
        with atomic_write(path) as unfinished:
            unfinished.write_text(text)
            assert text == "old" or path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["notes.json"]


def test_an_older_file_stays_where_the_new_one_fails(tmp_path):
    path = tmp_path / "notes.json"
    path.write_text("old")

    def write():
        with atomic_write(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.json"]


def test_never_over_another(tmp_path):
    path = tmp_path / "delta.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_new(ONE, path, {})
    assert path.read_bytes() == b"mine"
    assert names(tmp_path) == ["delta.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_every_number_as_it_was(tmp_path, dtype):
    """Also single ones, none, and tensors of odd sizes between them, which put the next ones out of step."""
    shapes = [(3, 5), (), (1,), (0,), (7,), (2, 4), (3,), (8,)]
    tensors = {f"{i}": (torch.rand(shape) * 9).to(dtype) for i, shape in enumerate(shapes)}
    tensors |= {"alpha": torch.tensor(4.0), "transposed": torch.rand(4, 2).T, "double": torch.rand(3).double()}
    found = load_file(str(write_new(tensors, tmp_path / "file.safetensors", {})))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_every_tensor_lies_at_a_multiple_of_its_numbers(tmp_path):
    """ComfyUI and safetensors look at the bytes in place."""
    tensors = {"odd": torch.ones(3).half(), "alpha": torch.tensor(1.0), "matrix": torch.ones(4, 4).half()}
    path = write_new(tensors, tmp_path / "file.safetensors", {})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name, tensor in tensors.items():
        assert (8 + length + header[name]["data_offsets"][0]) % tensor.element_size() == 0


def test_the_header_has_room_for_the_largest_names(tmp_path):
    tensors = {"n" * 400 + f"\u202e{i}": torch.zeros((1,) * 8) for i in range(200)}
    assert len(load_file(str(write_new(tensors, tmp_path / "file.safetensors", {"facts": "x" * 60000})))) == 200


def test_tensors_are_on_the_disk_when_the_next_one_is_made(tmp_path):
    """Whole models are written without being held."""
    with opened(tmp_path) as writer:
        sizes = []
        for i in range(3):
            writer.add(f"{i}", torch.ones(1 << 20))
            (unfinished,) = tmp_path.iterdir()
            sizes.append(unfinished.stat().st_size)
        writer.finish({})
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] == 4 << 20


def test_nobody_sees_an_unfinished_file_under_its_name(tmp_path):
    with opened(tmp_path) as writer:
        writer.add("a", torch.ones(1000))
        (unfinished,) = names(tmp_path)
        assert unfinished.startswith("delta_1_.")
        assert unfinished.endswith(".unfinished")
        assert writer.finish({}) == tmp_path / "delta_1_.safetensors"
    assert names(tmp_path) == ["delta_1_.safetensors"]


def test_two_writers_take_two_names(tmp_path):
    with opened(tmp_path) as one, opened(tmp_path) as two:
        assert two.finish({}).name == "delta_1_.safetensors"
        assert one.finish({}).name == "delta_2_.safetensors"
    assert names(tmp_path) == ["delta_1_.safetensors", "delta_2_.safetensors"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_name_that_another_program_takes_meanwhile(tmp_path, monkeypatch, links):
    """The content is not written again; it gets the next name. Also on disks without links."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    with opened(tmp_path) as writer:
        (tmp_path / "delta_1_.safetensors").write_bytes(b"another's")
        assert writer.finish({}).name == "delta_2_.safetensors"
    assert (tmp_path / "delta_1_.safetensors").read_bytes() == b"another's"
    assert names(tmp_path) == ["delta_1_.safetensors", "delta_2_.safetensors"]
    load_file(str(tmp_path / "delta_2_.safetensors"))


def test_no_name_is_free(tmp_path):
    path = tmp_path / "delta.safetensors"
    with new_file(path) as file:
        path.write_bytes(b"mine")
        with pytest.raises(FileExistsError, match="taken"):
            take_name(file, [path])
    assert path.read_bytes() == b"mine"
    assert names(tmp_path) == ["delta.safetensors"]


def test_nothing_is_left_of_a_failed_write(tmp_path):
    def write():
        with opened(tmp_path) as writer:
            writer.add("a", torch.ones(1000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert names(tmp_path) == []


KILLED = """
import os, sys
from pathlib import Path
from perflow_core.atomic_file import new_file
with new_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    os._exit(9)
"""


def test_a_writer_that_is_killed_leaves_nothing_under_the_name(tmp_path, repository):
    path = tmp_path / "delta_1_.safetensors"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=repository, check=False)
    (left,) = names(tmp_path)
    assert left.endswith(".unfinished")
    assert write_new(ONE, path, {}) == path  # what another process left is not in the way


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_others_may_read_what_the_umask_lets_them(tmp_path, umask):
    before = os.umask(umask)
    try:
        path = write_new(ONE, tmp_path / "delta.safetensors", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_name_as_long_as_names_may_be(tmp_path):
    """The unfinished one is not longer."""
    path = tmp_path / ("n" * (255 - len("_00001_.safetensors")) + "_00001_.safetensors")
    assert write_new(ONE, path, {}) == path


def test_room_that_does_not_do(tmp_path):
    with opened(tmp_path, header_room([])) as writer, pytest.raises(ValueError, match="header takes"):
        writer.finish({"facts": "x" * 70000})
