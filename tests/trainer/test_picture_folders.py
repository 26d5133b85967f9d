"""Repeats, mirrored pictures, and folders as kohya's scripts and SimpleTuner have them."""

import io
import json

import pytest
import torch
from PIL import Image

from training.buckets import Buckets
from training.config import parse
from training.latents import LatentFiles, mirrored_by_chance
from training.picture_folders import folder_pictures
from training.pictures import pixels
from training.stopping import TrainingError

HALVES = Image.new("RGB", (64, 64))
HALVES.paste((250, 80, 20), (0, 0, 20, 64))


def write(root, files: dict[str, str | None]) -> None:
    """Pictures with the captions beside them, if any, and texts as they are."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            HALVES.save(path)
            path = path.with_suffix(".txt")
        if text is not None:
            path.write_text(text, encoding="utf-8")


@pytest.fixture
def found(configuration, tmp_path):
    """Of a configuration of data: by picture its captions and repeats, and what was said."""

    def read(path="pictures", **data):
        said: list[str] = []
        config = parse(configuration(data={"path": str(tmp_path / path)} | data)).data
        pictures = folder_pictures(config, said.append)
        return {picture.name: ([picture.caption, *picture.others], picture.repeats) for picture in pictures}, said

    return read


KOHYA = {
    "10_sks dog/a.png": None, "10_sks dog/a.caption": "a dog\nin the snow", "10_sks dog/b.png": None,
    "2_my_style/c.png": "a boat", "2_my_style/c.caption": "not this", "2_my_style/deeper/d.png": "left out",
    "notes/e.png": "left out", "0_off/f.png": "left out", "g.png": "left out", "10_empty/h.txt": "no picture",
}  # fmt: skip


def test_kohyas_folders(found, tmp_path):
    write(tmp_path / "pictures", KOHYA)
    pictures, said = found(kind="kohya")
    assert pictures == {
        "10_sks dog/a.png": (["a dog"], 10), "10_sks dog/b.png": (["sks dog"], 10), "2_my_style/c.png": (["a boat"], 2),
    }  # fmt: skip
    assert said == [
        "Pictures outside folders called REPEATS_CLASS are left out: 4 (0_off/f.png, 2_my_style/deeper/d.png, "
        "notes/e.png, g.png).",
        "Texts without a picture of their name, which are left out: 1 (10_empty/h.txt).",
    ]
    with pytest.raises(TrainingError, match="has no folder of pictures called REPEATS_CLASS"):
        found(kind="kohya", path="pictures/10_sks dog")


def test_repeats_of_a_plain_folder(found, tmp_path):
    files = {"1_a/x.png": "x", "1_a/b/y.png": "y", "2_c/z.png": "z"}
    write(tmp_path / "pictures", files)
    pictures, said = found(kind="folder")
    assert pictures == {name: ([caption], 1) for name, caption in files.items()}
    (line,) = said
    assert 'data.kind = "kohya" takes them so' in line
    pictures, said = found(kind="folder", repeats={".": 2, "1_a/b": 5})
    assert pictures == {"1_a/x.png": (["x"], 2), "1_a/b/y.png": (["y"], 5), "2_c/z.png": (["z"], 2)}
    assert said == []
    for wrong in ("3_d", "..", "1_a/x.png"):
        with pytest.raises(TrainingError, match=r"data\.repeats names .*, expected a folder in data\.path"):
            found(kind="folder", repeats={wrong: 2})


def simpletuner(tmp_path, **of_first) -> None:
    first = {
        "id": "texts", "type": "local", "instance_data_dir": str(tmp_path / "some"), "caption_strategy": "textfile",
        "repeats": 2, "crop": True, "cache_dir_vae": "cache",
    }  # fmt: skip
    names = {"id": "names", "type": "local", "instance_data_dir": str(tmp_path / "others")}
    names |= {"caption_strategy": "filename", "instance_prompt": "photo of", "prepend_instance_prompt": True}
    prompt = {"id": "p", "type": "local", "instance_data_dir": str(tmp_path / "others"), "instance_prompt": "a cat"}
    sets = [
        first | of_first, names, prompt | {"caption_strategy": "instanceprompt"},
        {"id": "embeds", "dataset_type": "text_embeds", "type": "local", "default": True},
        {"id": "off", "type": "aws", "disabled": True},
    ]  # fmt: skip
    (tmp_path / "multidatabackend.json").write_text(json.dumps(sets))


def test_simpletuners_data_sets(found, tmp_path):
    write(tmp_path, {"some/deep/a.png": "a boat\n\n a ship\n", "some/b.png": None, "others/red_car.png": "not this"})
    simpletuner(tmp_path)
    said: list[str] = []
    data = {"kind": "simpletuner", "path": "multidatabackend.json"}
    pictures, said = found(**data)
    car, boat = (str(tmp_path / name) for name in ("others/red_car.png", "some/deep/a.png"))
    assert pictures == {boat: (["a boat", "a ship"], 3), car: (["a cat"], 1)}
    assert [line.split(str(tmp_path))[0] for line in said] == [
        'Keys that do nothing here in the data set "texts" of data.path ',
        "Pictures without a caption, which are left out: 1 of 4 (",
    ]
    assert said[0].endswith(": crop.")
    for wrong, sentence in [
        (
            {"caption_strategy": "parquet"},
            "caption_strategy is 'parquet' in the data set \"texts\" .* expected 'textfile'",
        ),
        ({"dataset_type": "video"}, "dataset_type is 'video'"),
        ({"type": "aws"}, "type is 'aws'"),
        ({"repeats": "3"}, "repeats is '3' .* expected a int"),
        ({"instance_data_dir": "none"}, "instance_data_dir none is no folder"),
        ({"only_instance_prompt": True}, "instance_prompt is missing"),
    ]:
        simpletuner(tmp_path, **wrong)
        with pytest.raises(TrainingError, match=sentence):
            found(**data)
    (tmp_path / "multidatabackend.json").write_text('{"id": 1}')
    with pytest.raises(TrainingError, match=r"cannot be read \(it is no list of data sets\)"):
        found(**data)


def test_an_epoch_with_repeats_and_mirrored_pictures(run, tmp_path):
    """Each picture so often, as often mirrored, whose latents are the VAE's; what is held out is in no form seen."""
    write(tmp_path / "pictures", {f"{count}_of/{i}.png": f"{count} {i}" for count in (1, 3) for i in range(2)})
    data = {"kind": "kohya", "path": str(tmp_path / "pictures"), "flip": True}
    trained = run(data=data, validation={"held_out": 1})
    source, teacher = trained.source, trained.teacher
    ((_, (held,)),) = source.held
    captions = [f"{count} {i}" for count in (1, 3) for i in range(2)]
    total = sum(2 * int(caption[0]) for caption in captions if caption != held)
    x0, texts = source.take(range(total))
    assert {text: texts.count(text) for text in texts} == {
        caption: 2 * int(caption[0]) for caption in captions if caption != held
    }
    data_of = io.BytesIO()
    HALVES.save(data_of, "PNG")
    usual = pixels(data_of.getvalue(), Buckets.square(64))
    mean = teacher.encode_pictures(torch.stack([usual, usual.flip(-1)]))
    nearest = [int((mean - row).square().flatten(1).sum(1).argmin()) for row in x0]
    assert sum(nearest) == total / 2
    assert len({tuple(row.flatten().tolist()) for row in x0}) == 6  # each its own noise


def test_captions_take_turns(latents_file, tmp_path):
    path = tmp_path / "turns.safetensors"
    path.write_bytes(latents_file.read_bytes())
    captions = [["a", "b", "c"], *["d"] * 19]
    path.with_suffix(".json").write_text(json.dumps({"captions": captions, "repeats": [2] + [1] * 19}))
    files = LatentFiles(path, 0)
    assert len(files.rows) == 21
    texts = [sorted(set(files.take(range(start, start + 21))[1]) - {"d"}) for start in (0, 21, 42)]
    assert texts == [["a", "b"], ["a", "c"], ["b", "c"]]
    path.with_suffix(".json").write_text(json.dumps({"captions": captions, "repeats": [2]}))
    with pytest.raises(TrainingError, match="holds 20 latents and"):
        LatentFiles(path, 0).take([0])


def test_pictures_mirrored_by_chance():
    """The same ones whenever they are asked for, and half of them."""
    part = torch.arange(4.0).reshape(1, 1, 4)
    flipped, again = ([bool(mirrored_by_chance(part, 0, i)[0, 0, 0] == 3) for i in range(200)] for _ in range(2))
    assert flipped == again
    assert 70 < sum(flipped) < 130
