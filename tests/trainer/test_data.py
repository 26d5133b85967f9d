"""Pictures in folders and shards, prompts alone, and what cannot be read."""

import io
import json
import tarfile

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from training.buckets import Buckets
from training.latents import LatentFiles
from training.picture_folders import folder_pictures
from training.pictures import ShardStream, decoded, pixels
from training.stopping import Stopped, TrainingError


def jpeg(number: int, size=(80, 64)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, (number * 20, 90, 255 - number * 20)).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def shards(tmp_path):
    """2 shards of 5 samples, of which one is broken."""
    write_shards(tmp_path)
    return {"kind": "webdataset", "path": str(tmp_path / "shard-{0..1}.tar")}


def write_shards(folder, caption="picture", encoding="utf-8", numbers=range(2)) -> None:
    for shard in numbers:
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as tar:
            for i in range(5):
                number = 5 * shard + i
                parts = {
                    "jpg": b"broken" if number == 3 else jpeg(number),
                    "txt": f"{caption} {number}".encode(encoding),
                }
                for ending, data in parts.items():
                    member = tarfile.TarInfo(f"{number:03}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def pictures(tmp_path):
    """A folder of 6 pictures with captions, of which one is broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(b"broken" if i == 2 else jpeg(i))
    return folder


def captioned(folder) -> None:
    lines = [json.dumps({"file_name": f"{i}.jpg", "text": f"picture {i}"}) for i in range(6)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def test_the_largest_centred_square():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    data = io.BytesIO()
    Image.fromarray(wide).save(data, "PNG")
    square = pixels(data.getvalue(), Buckets.square(16))
    assert square.shape == (3, 16, 16)
    assert square[:, 8, 2:14].min() > 0.9


def prepared_again(trained) -> None:
    """As a later start does it."""
    from training.latents import source
    from training.prepared_latents import Share

    share = Share(0, 1, lambda: False, trained.say)
    source(trained.config, trained.facts, trained.teacher, trained.prompts, share)


@pytest.mark.parametrize("kind", ["metadata", "text files"])
def test_a_folder_of_pictures(run, pictures, capfd, kind):
    if kind == "metadata":
        captioned(pictures)
    else:
        for i in range(6):
            (pictures / f"{i}.txt").write_text(f"picture {i}\n")
    trained = run(data={"kind": "folder", "path": str(pictures)}, optimizer={"steps": 2})
    assert "Skipped 2.jpg, which cannot be read" in capfd.readouterr().err
    prepared_again(trained)
    said = "Pictures that could not be read at an earlier start, which are left out: 1 (2.jpg)."
    assert said in capfd.readouterr().err
    trained.train()
    files = LatentFiles(trained.source.path, 0)
    assert sorted(files.files[0].captions) == [[f"picture {i}"] for i in (0, 1, 3, 4, 5)]
    x0, captions = files.take([0])
    pixel = pixels((pictures / f"{captions[0][-1]}.jpg").read_bytes(), Buckets.square(64))
    mean = trained.teacher.encode_pictures(pixel[None])
    spread = trained.teacher.vae.encode(pixel[None]).latent_dist.std * trained.teacher.vae.config.scaling_factor
    assert ((x0 - mean).abs() < 5 * spread + 2e-3).all()


@pytest.mark.parametrize(
    "names",
    [
        ["old_train.png", "a.png", "b.png"],
        ["sunset_test.png", "a.png"],
        ["test/a.png", "test/b.png"],
        ["train/a.png", "train/b.png", "val/a.png"],
        ["eval-1.png", "dev/a.png", "[1].PNG", "[set 2]/a b.webp"],
    ],
)
@pytest.mark.parametrize("kind", ["one table", "tables", "text files"])
def test_every_picture_is_used_whatever_it_is_called(configuration, tmp_path, names, kind):
    folder = tmp_path / "pictures"
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
        if kind == "text files":
            path.with_suffix(".txt").write_text(f"about {name}")
            continue
        table = (folder if kind == "one table" else path.parent) / "metadata.jsonl"
        with table.open("a") as file:
            row = {"file_name": path.relative_to(table.parent).as_posix(), "text": f"about {name}"}
            file.write(json.dumps(row) + "\n")
    (folder / "._a.png").write_bytes(b"of the system")
    found, said = folder_of(configuration, folder)
    assert {picture.name: picture.caption for picture in found} == {name: f"about {name}" for name in names}
    assert said == []


def folder_of(configuration, folder):
    """The pictures that are found there, and what is said."""
    from training.config import parse

    said = []
    config = parse(configuration(data={"kind": "folder", "path": str(folder)})).data
    return folder_pictures(config, said.append), said


COLOUR = (200, 90, 30)
PLAIN = Image.new("RGB", (24, 16), COLOUR)


def saved(image: Image.Image, ending: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, ending, **options)
    return data.getvalue()


def turned() -> bytes:
    """A left half of the colour, which the note of the camera puts below."""
    image, exif = Image.new("RGB", (32, 32)), Image.Exif()
    image.paste(COLOUR, (0, 0, 16, 32))
    exif[0x0112] = 8  # turn left by 90 degrees
    return saved(image, "PNG", exif=exif)


OF_ANY_KIND = {
    "plain.png": saved(PLAIN, "PNG"), "UPPER.JPG": saved(PLAIN, "JPEG"), "bitmap.bmp": saved(PLAIN, "BMP"),
    "web.webp": saved(PLAIN, "WEBP", lossless=True), "scan.tiff": saved(PLAIN, "TIFF"),
    "palette.png": saved(PLAIN.quantize(4), "PNG"),
    "moving.gif": saved(PLAIN, "GIF", save_all=True, append_images=[PLAIN.rotate(90)]),
    "alpha.png": saved(PLAIN.convert("RGBA"), "PNG"), "print.jpg": saved(PLAIN.convert("CMYK"), "JPEG"),
    "one pixel.png": saved(PLAIN.resize((1, 1)), "PNG"), "wide.png": saved(PLAIN.resize((900, 3)), "PNG"),
    "\u96ea\u5c71 caf\xe9.png": saved(PLAIN, "PNG"), "deep/er/a.png": saved(PLAIN, "PNG"),
    "no.png": b"", "page.png": b"<html>", "cut.png": saved(PLAIN, "PNG")[:60],
    "floats.tiff": saved(PLAIN.convert("F"), "TIFF"), "strange.dds": b"DDS " + bytes([124, *bytes(123)]),
}  # fmt: skip


def test_pictures_of_any_kind(configuration, tmp_path, capfd):
    for name, data in OF_ANY_KIND.items():
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(name, encoding="utf-8")
    (tmp_path / "pictures" / "link.png").symlink_to(tmp_path / "pictures" / "plain.png")
    (tmp_path / "pictures" / "link.txt").write_text("link.png")
    (tmp_path / "pictures" / "notes.txt").write_text("of no picture")
    (tmp_path / "pictures" / "phone.HEIC").write_bytes(b"of a phone")
    (tmp_path / "pictures" / "phone.txt").write_text("of a phone")
    pictures, said = folder_of(configuration, tmp_path / "pictures")
    assert said == [
        "Pictures of a kind that Pillow does not read, which are left out: 1 (phone.HEIC); save them as PNG or JPEG.",
        "Texts without a picture of their name, which are left out: 1 (notes.txt).",
    ]
    assert {picture.name: picture.caption for picture in pictures} == {
        name: name for name in [*OF_ANY_KIND, "link.png"]
    }
    skipped: list[str] = []
    for picture, found in decoded(pictures, Buckets.square(16), skipped):
        if found is not None:
            mean = (found.mean((1, 2)) + 1) * 127.5
            assert (mean - torch.tensor(COLOUR)).abs().max() < 4, picture.name
    assert sorted(skipped) == ["cut.png", "floats.tiff", "no.png", "page.png", "strange.dds"]
    assert "page.png, which cannot be read (it is no picture that Pillow reads); " in capfd.readouterr().err
    upright = (pixels(turned(), Buckets.square(16))[0] + 1) * 127.5
    assert (upright[:7] < 10).all()
    assert (upright[9:] > 190).all()


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB with one colour"])
def test_white_lies_behind_transparent_pictures(kind):
    if kind == "RGB with one colour":
        data = saved(Image.new("RGB", (8, 8), COLOUR), "PNG", transparency=COLOUR)
    else:
        clear = Image.new("RGBA", (8, 8), (*COLOUR, 0))
        data = saved(clear if kind == "RGBA" else clear.convert(kind), "PNG")
    assert pixels(data, Buckets.square(8)).min() == 1
    half = saved(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG")
    assert pixels(half, Buckets.square(8)).abs().max() < 0.01


def test_linked_folders(configuration, tmp_path):
    """Are followed, and not for ever."""
    for name in ("pictures/a", "elsewhere/b", "one", "two"):
        (tmp_path / name).mkdir(parents=True)
    for i, name in enumerate(("pictures/a/0.png", "elsewhere/b/1.png")):
        (tmp_path / name).write_bytes(jpeg(i))
    (tmp_path / "pictures" / "a" / "0.txt").write_text("here")
    (tmp_path / "elsewhere" / "metadata.jsonl").write_text('{"file_name": "b/1.png", "text": "there"}')
    for link, to in {
        "pictures/linked": "elsewhere", "pictures/a/up": "pictures", "pictures/one": "one", "one/to": "two",
        "two/to": "one", "pictures/gone": "nowhere",
    }.items():  # fmt: skip
        (tmp_path / link).symlink_to(tmp_path / to)
    found, said = folder_of(configuration, tmp_path / "pictures")
    assert {picture.name: picture.caption for picture in found} == {"a/0.png": "here", "linked/b/1.png": "there"}
    assert said == []


def test_captions_in_a_csv_are_text(configuration, pictures):
    texts = ["007", "None", "NA", "nan", "1e5", "a, b"]
    rows = [f'{i}.jpg,"{text}"' for i, text in enumerate(texts)]
    (pictures / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    found, said = folder_of(configuration, pictures)
    assert [picture.caption for picture in found] == texts
    assert said == []
    for table in ("name,text\n0.jpg,a", "file_name,text\n../0.jpg,a", 'file_name,text\n0.jpg,"a', ""):
        (pictures / "metadata.csv").write_text(table)
        with pytest.raises(TrainingError, match=r'metadata\.csv cannot be read \(.*\), expected a "file_name"'):
            folder_of(configuration, pictures)


def test_captions_in_parquet(configuration, pictures):
    import datasets

    names = [f"{i}.jpg" for i in range(6)]
    table = datasets.Dataset.from_dict({"file_name": names, "text": ["007", None, "NA", "2020-01-01", "a", "b"]})
    table.to_parquet(pictures / "metadata.parquet")
    found, said = folder_of(configuration, pictures)
    assert [picture.caption for picture in found] == ["007", "NA", "2020-01-01", "a", "b"]
    assert said == ["Pictures without a caption, which are left out: 1 of 6 (1.jpg)."]


def test_pictures_without_a_caption_are_counted_and_named(configuration, pictures):
    captioned(pictures)
    with (pictures / "metadata.jsonl").open("a") as file:
        file.write('\n{"file_name": "gone.jpg", "text": "gone"}\n{"file_name": "also.jpg", "text": null}')
    for name in ("new.jpg", "also.jpg", "more.jpg"):
        (pictures / name).write_bytes(jpeg(7))
    (pictures / "more.txt").write_bytes("\ufeffwith a mark".encode())
    found, said = folder_of(configuration, pictures)
    assert [picture.name for picture in found] == [*(f"{i}.jpg" for i in range(6)), "more.jpg"]
    assert found[-1].caption == "with a mark"
    assert said == [
        "Captions without a picture: 1 (gone.jpg).",
        "Pictures without a caption, which are left out: 2 of 9 (also.jpg, new.jpg).",
    ]
    (pictures / "metadata.jsonl").write_text("{broken")
    with pytest.raises(TrainingError, match=r'metadata\.jsonl cannot be read .*expected a "file_name" and a "text"'):
        folder_of(configuration, pictures)


def grey(mode: str, ending: str) -> bytes:
    """8 by 8, from black to white."""
    data = io.BytesIO()
    values = np.linspace(0, 1, 64).reshape(8, 8)
    scaled = (values * 65535).round().astype(np.uint16) if mode == "I;16" else (values * 255).round().astype(np.uint8)
    Image.fromarray(scaled).save(data, ending)
    return data.getvalue()


@pytest.mark.parametrize("ending", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_not_clipped(ending):
    deep, usual = (pixels(grey(mode, ending), Buckets.square(8)) for mode in ("I;16", "L"))
    assert usual.min() == -1
    assert usual.max() == 1
    assert (deep - usual).abs().max() < 1.5 / 127.5


def test_captions_with_a_byte_order_mark(configuration, pictures, tmp_path):
    captioned(pictures)
    table = pictures / "metadata.jsonl"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert [picture.caption for picture in folder_of(configuration, pictures)[0]] == [f"picture {i}" for i in range(6)]
    table.unlink()
    (pictures / "metadata.csv").write_text("file_name,text\n0.jpg,first\n", encoding="utf-8-sig")
    assert [picture.caption for picture in folder_of(configuration, pictures)[0]] == ["first"]


BROKEN_TABLES = [
    b'{"file_name": "0.jpg", "text": "picture 0"}\n{"file_name": "1.j',
    b'{"text": "no name"}',
    b'{"file_name": "../0.jpg", "text": "outside"}',
    b'{"file_name": "0.jpg", "text": ["a cat", "sitting"]}',
    b'{"file_name": "0.jpg", "text": 7}',
    b"[]",
    b"\n",
    b"",
    '{"file_name": "0.jpg", "text": "caf\xe9"}'.encode("latin-1"),
]


@pytest.mark.parametrize("table", BROKEN_TABLES)
def test_a_table_that_cannot_be_read(configuration, pictures, table):
    (pictures / "metadata.jsonl").write_bytes(table)
    with pytest.raises(
        TrainingError, match=r"metadata\.jsonl cannot be read( after row 1)? \(.*\), expected a"
    ) as error:
        folder_of(configuration, pictures)
    assert "\n" not in str(error.value)


def test_captions_that_are_not_utf_8(configuration, shards, pictures, tmp_path):
    """Of a folder they are refused; of shards they are passed over and named, as broken pictures are."""
    (pictures / "0.txt").write_bytes(b"caf\xe9")
    with pytest.raises(TrainingError, match=r"caption .*0\.txt is not UTF-8"):
        folder_of(configuration, pictures)
    write_shards(tmp_path, "caf\xe9", "latin-1")
    write_shards(tmp_path, numbers=range(1, 2))
    from training.config import parse

    stream = ShardStream(parse(configuration(data=shards)).data, 0, 0, 1)
    skipped: list[str] = []
    read = dict(decoded([picture for picture, _ in zip(stream, range(10), strict=False)], Buckets.square(64), skipped))
    assert {picture.caption for picture, found in read.items() if found is not None} == {
        f"picture {i}" for i in range(5, 10)
    }
    assert len(skipped) == 5


def test_a_shard_that_is_cut_off(configuration, shards, tmp_path):
    from training.config import parse

    path = tmp_path / "shard-0.tar"
    whole = path.read_bytes()
    for cut in (whole[:700], b"<html>" * 200, b""):
        path.write_bytes(cut)
        with pytest.raises(TrainingError, match=r"The shard .*shard-0\.tar cannot be read \(.*\): it may be cut off"):
            list(zip(ShardStream(parse(configuration(data=shards)).data, 0, 0, 1), range(10), strict=False))


def test_shards(run, shards, capfd, tmp_path):
    changes = {
        "data": shards | {"resolution": 64, "flip": True},
        "optimizer": {"steps": 6},
        "cache": {"uses": 1, "endpoints": 8},
    }
    straight = run(output=str(tmp_path / "straight"), **changes)
    straight.train()
    assert "003.jpg, which cannot be read" in capfd.readouterr().err
    assert straight.source.place == "2:6"  # 24 good ones: a broken one in each pass of 10

    stopped = run(save={"every": 3}, **changes)
    step = stopped._one_step

    def stop_in_the_third():
        if stopped.step == 2:
            stopped.stop_requested.set()
        return step()

    stopped._one_step = stop_in_the_third
    with pytest.raises(Stopped):
        stopped.train()
    last = run(**changes)
    last.train()
    assert straight.losses == stopped.losses + last.losses


def test_shards_by_pattern(configuration, shards, tmp_path):
    from training.config import parse
    from training.pictures import ShardStream

    def found(*names):
        path = "::".join(str(tmp_path / name) for name in names)
        return ShardStream(parse(configuration(data=shards | {"path": path})).data, 0, 0, 1).shards

    both = [str(tmp_path / f"shard-{i}.tar") for i in range(2)]
    assert found("shard-*.tar") == found("shard-[01].tar") == found("shard-{0..1}.tar") == both
    assert found("shard-1.tar", "shard-?.tar") == [both[1], *both]
    (odd := tmp_path / "a[b].tar").write_bytes(b"")
    assert found(odd.name) == [str(odd)]
    with pytest.raises(TrainingError, match=r"the shard .*none-\*\.tar is not there"):
        found("none-*.tar")


def test_other_shards_under_the_same_names(run, shards, tmp_path, capfd):
    data = shards | {"resolution": 64, "prompt_dropout": 0.0}
    for caption in ("picture", "another", "another"):
        write_shards(tmp_path, caption)
        (batch,) = run(data=data).segments.batches(0)
        assert all(text.startswith(caption) for text in batch.prompts)
    assert "process-0 is made again: it was made with the shards = " in capfd.readouterr().err


NAMES_IN_A_SHARD = [
    "p1.v2.png", "p1.v2.txt", "p2.v2.PNG", "p2.v2.txt", "a.b/p.bmp", "a.b/p.txt", "._p.png", "drawing.svg",
    "drawing.txt", "silent.png", "listed.png", "listed.json", "half.png", "half.json",
]  # fmt: skip


def test_names_with_dots_and_what_is_left_out_of_shards(configuration, tmp_path, capfd):
    from training.config import parse

    texts = {"listed.json": b'{"text": ["a", "b"]}', "half.json": b'{"text": "\\ud800"}'}
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in NAMES_IN_A_SHARD:
            data = name.encode() if name.endswith("txt") else texts.get(name, saved(PLAIN, "PNG"))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = {"kind": "webdataset", "path": str(tmp_path / "shard.tar"), "shuffle": 1}
    stream = ShardStream(parse(configuration(data=data)).data, 0, 0, 1)
    skipped: list[str] = []
    two_passes = [picture for picture, _ in zip(stream, range(10), strict=False)]
    read = [picture.caption for picture, found in decoded(two_passes, Buckets.square(8), skipped) if found is not None]
    assert read == ["p1.v2.txt", "p2.v2.txt", "a.b/p.txt"] * 2
    lines = [line.replace(str(tmp_path), "") for line in capfd.readouterr().err.splitlines()]
    assert lines[:4] == [
        "Left out /shard.tar/drawing, which has no picture that Pillow reads; 1 so far.",
        "Left out /shard.tar/silent, which has no caption; 2 so far.",
        "Skipped /shard.tar/listed.png, which cannot be read (the caption is ['a', 'b'], expected text); 1 so far.",
        "Skipped /shard.tar/half.png, which cannot be read (the caption '\\ud800' has half a character, expected whole "
        "ones); 2 so far.",
    ]
    assert len(lines) == 6


def test_every_process_has_its_own_shards(shards, configuration):
    from training.config import parse

    config = parse(configuration(data=shards)).data
    streams = [ShardStream(config, 0, rank, 2) for rank in range(2)]
    captions = [{next(picture).caption for picture in [iter(stream)] * 5} for stream in streams]
    assert captions == [{f"picture {i}" for i in range(5)}, {f"picture {i}" for i in range(5, 10)}]
    with pytest.raises(TrainingError, match="2 shards for 3 processes"):
        ShardStream(config, 0, 0, 3)


def test_prompts_alone(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("a house\n\na boat\n")
    data = {"kind": "prompts", "path": str(tmp_path / "prompts.txt"), "samples_per_prompt": 2, "sampling_steps": 3}
    trained = run(data=data, optimizer={"steps": 2})
    trained.train()
    files = trained.source
    assert [file.captions for file in files.files] == [[["a house"], ["a boat"]] * 2]
    x0, _ = files.take(range(4))
    assert x0.shape == (4, 4, 8, 8)
    assert len({tuple(row.flatten().tolist()) for row in x0}) == 4
    assert torch.isfinite(x0).all()


def test_broken_pictures_are_counted_and_named(capfd):
    from training.pictures import Picture

    skipped = []
    sources = [
        Picture("good", lambda: jpeg(1), ""),
        Picture("bad", lambda: b"no", ""),
        Picture("cut", lambda: jpeg(1)[:200], ""),
    ]
    found = [square is not None for _, square in decoded(sources, Buckets.square(64), skipped)]
    assert found == [True, False, False]
    assert skipped == ["bad", "cut"]


def write_latents(path, captions, **tensors):
    safetensors.torch.save_file(tensors, path)
    path.with_suffix(".json").write_text(json.dumps(captions))
    return path


@pytest.mark.parametrize(
    "captions",
    [
        [7, "a"],
        ["a", None],
        ["a", "\ud800"],
        ["a", []],
        ["a", ["b", 1]],
        7,
        None,
        {},
        {"captions": ["a", "b"], "repeats": 2},
        {"captions": ["a", "b"], "repeats": [1, 0]},
        {"captions": ["a", "b"], "repeats": [1, "2"]},
    ],
)
def test_captions_of_latents_that_are_none(tmp_path, captions):
    path = write_latents(tmp_path / "mine.safetensors", captions, latents=torch.zeros(2, 4, 8, 8))
    with pytest.raises(
        TrainingError, match=r"mine\.json cannot be used( after caption \d)? \(.*\), expected a list of captions"
    ):
        LatentFiles(path, 0).take([0])


def test_latents_of_other_shapes(configuration, load_teacher, tmp_path):
    """Those that a model could not take, and those that are of another resolution than it is told."""
    from training.config import parse
    from training.latents import source

    config = parse(configuration(data={"path": str(tmp_path)}))
    teacher = load_teacher(config.teacher, 64)
    write_latents(tmp_path / "a.safetensors", ["a", "b"], latents=torch.zeros(2, 4, 8, 8))
    assert source(config, {}, teacher, None, None).shape == (4, 8, 8)
    for shape in [(4, 8, 16), (4, 16, 16), (16, 8, 8), (4, 1, 8, 8), (4, 8), ()]:
        write_latents(tmp_path / "b.safetensors", ["a", "b"], latents=torch.zeros(2, *shape))
        with pytest.raises(TrainingError, match=r"b\.safetensors holds latents of shape .* at data\.resolution 64"):
            source(config, {}, teacher, None, None)
    for tensors in (
        {"latents": torch.tensor(0.0)},
        {"latents": torch.zeros(2, 4, 8, 8), "mirrored": torch.zeros(1, 4, 8, 8)},
    ):
        write_latents(tmp_path / "b.safetensors", ["a", "b"], **tensors)
        with pytest.raises(TrainingError, match=r"b\.safetensors holds tensors of shapes"):
            source(config, {}, teacher, None, None)


def test_every_epoch_has_each_latent_once(latents_file):
    files = LatentFiles(latents_file, 1)
    first, second = (files.take(range(start, start + 20))[0] for start in (0, 20))
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(epoch.flatten(1).sum(1).sort().values, first.flatten(1).sum(1).sort().values)
