"""Aspect buckets: the sizes, groups of one size in every kind of data, and what each part is told of them."""

import io
import json
import os
import signal
import tarfile
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trial.small_flow_teachers import make_flow_teacher
from trial.small_teachers import NARROW, make_teacher

from perflow_core.training.curriculum import Purpose, generator
from training import needs, peak_memory, planning
from training.buckets import Buckets, Epochs, Size
from training.config import TeacherConfig, parse, without_effect
from training.pictures import bucket, pixels
from training.segment_cache import Lanes, SegmentCache
from training.stopping import Stopped, TrainingError

# Of kohya's sd-scripts, for --resolution 512 (sides of 256 to 1024) and 1024 (512 to 2048), in steps of 64; and the
# same turned round. Those of 1024 are the ones in SDXL's report that are not inside another one.
WIDE = {
    512: "512x512 576x448 640x384 704x320 768x320 832x256 896x256 960x256 1024x256",
    1024: (
        "1024x1024 1088x960 1152x896 1216x832 1280x768 1344x768 1408x704 1472x704 1536x640 1600x640 1664x576 1728x576 "
        "1792x576 1856x512 1920x512 1984x512 2048x512"
    ),
}
SHAPES = {"wide": (160, 80), "tall": (60, 130), "square": (90, 90), "strip": (400, 40)}
BUCKETS_OF = {"wide": Size(80, 48), "tall": Size(48, 80), "square": Size(64, 64), "strip": Size(128, 32)}
COUNTS = {"wide": 5, "tall": 3, "square": 2, "strip": 1}
NAMES = [f"{shape} {i}" for shape, count in COUNTS.items() for i in range(count)]
SMALL = {"buckets": True, "bucket_step": 16, "prompt_dropout": 0.0}
FEWER = {"cache": {"endpoints": 32, "uses": 1, "teacher_batch": 5}, "optimizer": {"steps": 16, "batch_size": 2}}


def buckets_of(configuration, **data) -> Buckets:
    return Buckets.of(parse(configuration(data={"kind": "folder", "path": "none", "buckets": True} | data)).data)


@pytest.mark.parametrize("resolution", WIDE)
def test_the_sizes_of_the_field(configuration, resolution):
    wide = {Size(*map(int, size.split("x"))) for size in WIDE[resolution].split()}
    found = buckets_of(configuration, resolution=resolution)
    assert set(found.sizes) == wide | {Size(h, w) for w, h in wide}
    assert found.largest == (resolution, resolution)


def test_the_nearest_size(configuration):
    """By hand: 3:2 is 1.026 times 1216x832, and 1280x768 is 1.11 times 3:2; 16:9 is 1.016 times 1344x768."""
    found = buckets_of(configuration, resolution=1024)
    expected = {
        (3000, 2000): (1216, 832), (2000, 3000): (832, 1216), (1920, 1080): (1344, 768), (4000, 3000): (1152, 896),
        (10, 10): (1024, 1024), (5000, 100): (2048, 512), (1, 9): (512, 2048), (832, 1216): (832, 1216),
    }  # fmt: skip
    assert {size: found.nearest(*size) for size in expected} == expected
    assert buckets_of(configuration, resolution=512).nearest(1920, 1080) == (640, 384)
    off = Buckets.of(parse(configuration(data={"kind": "folder", "path": "none"})).data)
    assert off.nearest(900, 3) == (64, 64)


@settings(deadline=None)
@given(
    st.integers(8, 160), st.integers(1, 16), st.floats(1, 6), st.integers(1, 5000), st.integers(1, 5000)
)  # fmt: skip
def test_the_rule(eighths, steps, max_aspect, width, height):
    """The area never above, no size but the square that has room for another step, and none nearer."""
    from training.config import DataConfig

    resolution, step = 8 * eighths, 8 * steps
    data = DataConfig(
        kind="folder", path="none", resolution=resolution, buckets=True, bucket_step=step, max_aspect=max_aspect
    )
    found = Buckets.of(data)
    if step > resolution:
        return
    area = resolution**2
    for w, h in found.sizes:
        assert w % step == h % step == 0
        assert 0 < w * h <= area
        assert max(w / h, h / w) <= max_aspect
        assert Size(h, w) in found.sizes
        assert w == h or (w + step) * h > area or w * (h + step) > area
    assert Size(*[resolution // step * step] * 2) in found.sizes
    w, h = found.nearest(width, height)

    def kept(w, h):
        """The share of the picture that is not cut away."""
        return min(w * height, h * width) / max(w * height, h * width)

    assert kept(w, h) == max(kept(*size) for size in found.sizes)


def picture(size: tuple[int, int], **how) -> bytes:
    """Red on its left half and blue on its right one."""
    values = np.zeros((size[1], size[0], 3), np.uint8)
    values[:, : size[0] // 2, 0] = values[:, size[0] // 2 :, 2] = 255
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG", **how)
    return data.getvalue()


def test_a_picture_covers_its_bucket_and_is_cut_in_the_centre(configuration):
    buckets = buckets_of(configuration, resolution=64, bucket_step=16)
    found = pixels(picture((160, 80)), buckets)
    assert found.shape == (3, 48, 80)
    assert bucket(picture((160, 80)), buckets) == (80, 48)
    assert (found[0, :, :38] > 0.9).all()
    assert (found[2, :, 42:] > 0.9).all()
    turned = Image.Exif()
    turned[0x0112] = 6
    assert bucket(picture((160, 80), exif=turned), buckets) == (48, 80)
    assert pixels(picture((160, 80), exif=turned), buckets).shape == (3, 80, 48)


def in_groups(kinds: list[int], size: int, seed: int):
    """The rule as a user would say it: example after example, in the order of the epochs, into its kind's box."""
    boxes: dict[int, list[tuple[int, int]]] = {kind: [] for kind in kinds}
    epoch = 0
    while True:
        for i in generator(seed, Purpose.EPOCH, epoch).permutation(len(kinds)).tolist():
            box = boxes[kinds[i]]
            box.append((epoch, i))
            if len(box) == size:
                yield from box
                box.clear()
        epoch += 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 9), st.integers(0, 5))
def test_examples_come_in_groups_of_one_kind(kinds, size, seed):
    found = Epochs(kinds, size, seed)
    expected = list(islice(in_groups(kinds, size, seed), 25 * size))
    numbers = generator(seed, Purpose.BATCH).permutation(len(expected)).tolist()  # in any order
    assert [found[number] for number in numbers] == [expected[number] for number in numbers]
    assert all(len({kinds[i] for _, i in expected[at : at + size]}) == 1 for at in range(0, len(expected), size))
    for kind in {*kinds}:  # none is seen again before all of its kind are
        seen = [i for _, i in expected if kinds[i] == kind]
        for at in range(0, len(seen), kinds.count(kind)):
            epoch = seen[at : at + kinds.count(kind)]
            assert len(set(epoch)) == len(epoch)


def test_examples_of_one_kind_come_as_without_buckets():
    orders = np.concatenate([generator(3, Purpose.EPOCH, epoch).permutation(7) for epoch in range(4)])
    for size in (1, 4):
        found = Epochs([(4, 8, 8)] * 7, size, 3)
        assert [found[number][1] for number in range(28)] == orders.tolist()


def shape_of(name: str) -> str:
    return name.split()[0]


@pytest.fixture
def data_of(tmp_path, load_teacher, configuration):
    """(kind) -> data of that kind with pictures of several shapes, whose captions are NAMES."""

    def write(kind: str) -> dict:
        folder = tmp_path / "data"
        below = folder / "1_x" if kind == "kohya" else folder
        below.mkdir(parents=True)
        data = SMALL | {"kind": kind, "path": str(folder)}
        if kind == "webdataset":
            for shard in range(2):
                with tarfile.open(folder / f"{shard}.tar", "w") as tar:
                    for name in NAMES[shard::2]:
                        parts = {"png": picture(SHAPES[shape_of(name)]), "txt": name.encode()}
                        for ending, content in parts.items():
                            member = tarfile.TarInfo(f"{name}.{ending}")
                            member.size = len(content)
                            tar.addfile(member, io.BytesIO(content))
            return data | {"path": str(folder / "{0..1}.tar")}
        if kind == "latents":
            for shape, size in BUCKETS_OF.items():
                names = [name for name in NAMES if shape_of(name) == shape]
                path = folder / f"{shape}.safetensors"
                latents = torch.randn(len(names), 4, size.height // 8, size.width // 8)
                safetensors.torch.save_file({"latents": latents}, path)
                path.with_suffix(".json").write_text(json.dumps(names))
            return data
        for name in NAMES:
            (below / f"{name}.png").write_bytes(picture(SHAPES[shape_of(name)]))
            (below / f"{name}.txt").write_text(name)
        if kind == "simpletuner":
            entry = {"id": "a", "type": "local", "instance_data_dir": str(folder), "caption_strategy": "textfile"}
            (tmp_path / "multidatabackend.json").write_text(json.dumps([entry]))
            return data | {"path": str(tmp_path / "multidatabackend.json")}
        return data

    return write


def assert_of_one_size(rows) -> None:
    (shape,) = {shape_of(text) for text in rows.prompts}
    size = BUCKETS_OF[shape]
    assert tuple(rows.segment.x0.shape[1:]) == (4, size.height // 8, size.width // 8)


@pytest.mark.parametrize("kind", ["folder", "kohya", "simpletuner", "webdataset", "latents"])
def test_every_batch_has_one_size(run, data_of, kind):
    """And no picture is left out; teacher_batch 5 makes groups of 4, two batches of 2."""
    trained = run(data=data_of(kind), **FEWER)
    captions: Counter[str] = Counter()
    for step in range(16):
        (rows,) = trained.segments.batches(step)
        assert_of_one_size(rows)
        captions.update(rows.prompts)
    assert captions.total() == 32  # not quite 3 epochs of 11, of which at most 3 of each shape wait
    for shape, count in COUNTS.items():
        seen = [captions[name] for name in NAMES if shape_of(name) == shape]
        assert max(seen) - min(seen) <= 1
        assert abs(sum(seen) - 3 * count) <= 4
    chunks = [safetensors.torch.load_file(path) for path in trained.segments.folder.rglob("*.safetensors")]
    assert {len(chunk["w"]) for chunk in chunks} == {4}
    if kind == "folder":
        assert_latents_of_pictures(trained)


def assert_latents_of_pictures(trained) -> None:
    """Each is the VAE's of its picture in its bucket."""
    scale = trained.teacher.vae.config.scaling_factor
    for start in range(0, 16, 4):
        x0, captions = trained.source.take(range(start, start + 4))
        for latent, name in zip(x0, captions, strict=True):
            (part,) = [pixels(picture(SHAPES[shape_of(name)]), Buckets.of(trained.config.data))]
            posterior = trained.teacher.vae.encode(part[None]).latent_dist
            assert ((latent - scale * posterior.mean).abs() < 5 * scale * posterior.std + 2e-3).all()


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_stopped_and_killed(run, data_of, tmp_path, kind):
    """Goes on bit for bit, with accumulation, flip, rounds that end in between and pictures that wait."""
    changes = {
        "data": data_of(kind) | {"flip": True},
        "cache": {"endpoints": 12, "uses": 2, "teacher_batch": 3},
        "optimizer": {"steps": 6, "batch_size": 3, "accumulation": 2},
        "save": {"every": 2},
    }
    straight = run(output=str(tmp_path / "straight"), **changes)
    straight.train()
    stopped = run(**changes)
    step = stopped._one_step

    def stop_in_the_third():
        if stopped.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step()

    stopped._one_step = stop_in_the_third
    with pytest.raises(Stopped):
        stopped.train()
    killed = run(**changes)
    step_again = killed._one_step

    def break_off_in_the_sixth():
        if killed.step == 5:
            raise MemoryError
        return step_again()

    killed._one_step = break_off_in_the_sixth
    with pytest.raises(MemoryError):
        killed.train()
    last = run(**changes)
    assert (killed.step, last.step) == (5, 4)
    last.train()
    assert straight.losses == stopped.losses + killed.losses[:1] + last.losses
    assert straight.source.place == last.source.place
    if kind == "webdataset":
        assert " " in last.source.place  # some wait


def test_a_broken_picture_of_a_bucket(run, data_of, capfd, tmp_path):
    """In shards, one whose size can be read and one of which nothing can."""
    data = data_of("webdataset")
    with tarfile.open(tmp_path / "data" / "0.tar", "a") as tar:
        for name, content in (("cut", picture((160, 80))[:100]), ("none", b"broken")):
            for ending, part in (("png", content), ("txt", name.encode())):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
    trained = run(data=data, **FEWER)
    for step in range(16):
        for rows in trained.segments.batches(step):
            assert_of_one_size(rows)
    said = capfd.readouterr().err
    assert "0.tar/cut.png, which cannot be read (" in said
    assert "0.tar/none.png, which cannot be read (it is no picture that Pillow reads)" in said


def test_keys_that_make_again(run, data_of, capfd):
    """Latents and end points, and why; `test_caches.py` has each key alone."""
    data, shown = data_of("folder"), []
    for changes in ({}, {"bucket_step": 32}, {"bucket_step": 32, "max_aspect": 2.0}):
        trained = run(data=data | changes, **FEWER)
        shown.append(
            {tuple(rows.segment.x0.shape[2:]) for step in range(16) for rows in trained.segments.batches(step)}
        )
        said = capfd.readouterr().err
        for key in [*changes][-1:]:
            assert f"part-000000.safetensors was made with data.{key} = " in said
            assert f"process-0 is made again: it was made with data.{key} = " in said
    of_32 = {(8, 8), (4, 16), (4, 12), (12, 4)}
    assert shown == [{(size.height // 8, size.width // 8) for size in BUCKETS_OF.values()}, of_32, {(8, 8)}]


def test_what_is_held_out_has_several_sizes(run, data_of):
    tried = run(data=data_of("latents"), validation={"held_out": 7}, **FEWER)
    held = tried.source.held
    assert len(held) > 1
    captions = [name for _, some in held for name in some]
    assert len(set(captions)) == 7
    for x0, some in held:
        size = BUCKETS_OF[shape_of(some[0])]
        assert x0.shape == (len(some), 4, size.height // 8, size.width // 8)
    losses = tried.validation.losses(tried.unet)
    assert losses.rows.tolist() == [7, 7, 7, 7]
    for rows in tried.validation._batches(3):
        assert_of_one_size(rows)
    seen = {text for step in range(16) for rows in tried.segments.batches(step) for text in rows.prompts}
    assert not seen & set(captions)


def test_sdxl_is_told_the_size_of_the_bucket(run, data_of, tmp_path):
    """The teacher and the student, guided and not; and the preview that of the resolution."""
    teacher = make_teacher(tmp_path / "teacher", 2048)
    trained = run(
        teacher={"path": str(teacher), "guidance": 2.0}, data=data_of("folder"), **FEWER,
        preview={"every": 1, "teacher_steps": 2, "reference_steps": 2, "student_steps": [4]},
    )  # fmt: skip
    told = []

    def note(module, args, kwargs):
        (time_ids,) = kwargs["added_cond_kwargs"]["time_ids"].unique(dim=0).tolist()
        told.append((tuple(args[0].shape[2:]), time_ids))

    hooks = [unet.register_forward_pre_hook(note, with_kwargs=True) for unet in (trained.teacher.unet, trained.unet)]
    for step in range(4):
        trained.step = step
        trained._one_step()
    assert len({shape for shape, _ in told}) > 1
    for (h, w), time_ids in told:
        assert time_ids == [8 * h, 8 * w, 0, 0, 8 * h, 8 * w]
    told.clear()
    trained._show()
    assert {shape for shape, _ in told} == {(8, 8)}
    for hook in hooks:
        hook.remove()


def test_flow_models(run, data_of, tmp_path, load_teacher):
    """The transformer takes the places from the latents, and the VAE is one of videos; the path is that of a square."""
    folder = make_flow_teacher(tmp_path / "teacher", "qwen-image")
    data = data_of("folder")
    with pytest.raises(TrainingError, match=r"data\.bucket_step is 8, expected a multiple of 16 for teacher"):
        run(teacher={"path": str(folder)}, data=data | {"bucket_step": 8})
    trained = run(teacher={"path": str(folder)}, data=data, **FEWER)
    shift = load_teacher(TeacherConfig(path=str(folder)), 64).base.shift
    assert trained.teacher.base.shift == shift
    channels = trained.source.shape[:-2]
    shapes = set()
    for step in range(3):
        (rows,) = trained.segments.batches(step)
        size = BUCKETS_OF[shape_of(rows.prompts[0])]
        assert rows.segment.x0.shape == (2, *channels, size.height // 8, size.width // 8)
        shapes.add(size)
    assert len(shapes) > 1
    assert np.isfinite(trained._one_step()["loss"])


def test_two_processes(run, data_of):
    """Each has batches of one size, and together they see each picture as often as one process would."""
    trained = run(data=data_of("folder"), **FEWER)
    captions: Counter[str] = Counter()
    for rank in range(2):
        parts = trained.config, trained.teacher, trained.prompts, trained.source, trained.reflow
        segments = SegmentCache(*parts, Lanes(rank, 2, 2, 1), lambda: False)
        segments.fit(trained.facts)
        for step in range(8):
            (rows,) = segments.batches(step)
            assert_of_one_size(rows)
            captions.update(rows.prompts)
    alone = Counter(name for start in range(0, 32, 4) for name in trained.source.take(range(start, start + 4))[1])
    assert captions == alone


def test_the_plan_counts_the_largest_bucket(configuration, data_of):
    """In a configuration's resolution that is no multiple of the step, too."""
    data = data_of("folder")
    counted = {}
    for resolution, changes in ((64, {}), (72, {}), (72, {"buckets": False})):
        config = parse(configuration(data=data | {"resolution": resolution} | changes, preview={"every": 0}))
        needed = needs.of(config)
        counted[resolution, bool(changes)] = needed
        line = planning.text(config, needed).splitlines()[0]
        assert (" in 9 buckets (the largest counts, 64x64)," in line) == (resolution == 64), line
    square, odd, whole = (counted[key] for key in ((64, False), (72, False), (72, True)))
    for name in ("latents", "end points"):
        assert square.disk[name] < odd.disk[name] < whole.disk[name]
    assert square.card < odd.card < whole.card


def test_no_bucket_takes_more_than_the_largest():
    from diffusers import UNet2DConditionModel

    def peak(size):
        with torch.device("meta"):
            z, texts = torch.empty(1, 4, size.height // 8, size.width // 8), torch.empty(1, 77, 768)
        return peak_memory.of_step(
            unet, lambda: unet(z, 500, texts, return_dict=False)[0], torch.bfloat16, False, False
        )

    with torch.device("meta"):
        unet = UNet2DConditionModel(**NARROW, cross_attention_dim=768)
    square, *others = map(peak, [Size(512, 512), Size(704, 320), Size(256, 1024)])
    assert max(others) <= square


def test_what_cannot_be(configuration, run, data_of, tmp_path):
    with pytest.raises(
        TrainingError, match=r"data\.bucket_step is 128 with data\.resolution 64, expected at most that"
    ):
        parse(configuration(data={"buckets": True, "bucket_step": 128}))
    with pytest.raises(TrainingError, match=r"data\.bucket_step is 12, input should be a multiple of 8"):
        parse(configuration(data={"buckets": True, "bucket_step": 12}))
    data = data_of("latents")
    for shape in [(4, 7, 8), (4, 10, 8), (16, 8, 8), (4, 1, 8, 8), (4, 6)]:
        path = tmp_path / "data" / "more.safetensors"
        safetensors.torch.save_file({"latents": torch.zeros(1, *shape)}, path)
        path.with_suffix(".json").write_text('["square more"]')
        with pytest.raises(
            TrainingError, match=r"more\.safetensors holds latents of shape .* multiples of 2 with at most 64 places"
        ):
            run(data=data)
    said = without_effect(parse(configuration(data={"bucket_step": 16})))
    assert said == "Keys without effect in this configuration: data.bucket_step (only with data.buckets = true)."
    said = without_effect(parse(configuration(data={"kind": "prompts", "path": "none", "buckets": True})))
    assert "data.buckets (only with data.kind = folder or kohya or simpletuner or webdataset or latents)" in said
