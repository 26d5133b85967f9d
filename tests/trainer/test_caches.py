"""What an earlier start left in `output` is used where it fits, and made again where what it was made with changed."""

import io
import json
import os
import re
import shutil

import pytest
import safetensors.torch
import torch
from PIL import Image
from trial.small_teachers import make_teacher

from training import made_with, state, teacher
from training.config import Config, parse
from training.stopping import TrainingError


def write_picture(folder, name: str, number: int, caption: str) -> None:
    data = io.BytesIO()
    Image.new("RGB", (80, 64), (number * 20, 90, 255 - number * 20)).save(data, "PNG")
    (folder / f"{name}.png").write_bytes(data.getvalue())
    (folder / f"{name}.txt").write_text(caption)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of 5 pictures with captions."""
    base = tmp_path_factory.mktemp("pictures")
    for first, name in ((0, "some"), (5, "others")):
        (base / name).mkdir()
        for i in range(5):
            write_picture(base / name, f"{i}", first + i, f"picture {first + i}")
    return base


@pytest.fixture(scope="module")
def another_teacher(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("another"), seed=1)


@pytest.fixture
def configuration(configuration):
    """With fewer end points."""
    fewer = {"endpoints": 8, "teacher_batch": 4}
    return lambda **changes: configuration(**changes | {"cache": fewer | changes.get("cache", {})})


def shown(trained) -> list[torch.Tensor]:
    """All that the next 3 steps are trained on."""
    found = []
    for step in range(trained.step, trained.step + 3):
        for rows in trained.segments.batches(step):
            found += [*rows.segment, rows.T, *trained.prompts.embed(rows.prompts)]
    return found


def outcome(run, **changes) -> list[torch.Tensor] | str:
    """What is shown after a start with these changes, or that it was refused."""
    try:
        return shown(run(**changes))
    except TrainingError:
        return "refused"


def assert_same(one, other) -> None:
    assert isinstance(one, str) == isinstance(other, str), (one, other)
    assert one == other if isinstance(one, str) else all(map(torch.equal, one, other))


def times(folder) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


# One other value for each key of a configuration; "pictures" and "teacher" become paths. Caches are made with these:
ALONE = {
    "seed": 1, "teacher.path": "teacher", "teacher.prediction_type": "v_prediction", "teacher.clip_skip": -2,
    "teacher.guidance": 2.5, "teacher.solver": "ddim", "teacher.solving_steps": 3, "student.windows": 2,
    "points.grid": "uniform", "points.per_window": 2, "points.start_share": 0.8, "points.N": 500,
    "points.pure_noise": True,
    "data.path": "pictures", "data.caption": "words", "data.repeats": {".": 3}, "data.flip": True,
    "data.buckets": True, "data.bucket_step": 32, "data.max_aspect": 2.0,
    "data.resolution": 128, "data.prompt_dropout": 0.9,
    "data.shuffle": 7, "validation.held_out": 2,
    "cache.endpoints": 4, "cache.teacher_batch": 2, "cache.precision": "float32",
    "optimizer.batch_size": 2, "optimizer.accumulation": 2, "optimizer.precision": "bf16",
    "optimizer.channels_last": False,
}  # fmt: skip
REFUSED = {
    "teacher.float8": True, "data.kind": "latents", "student.delta": "none", "student.delta_rank": 2,
    "teacher.shift": 3.0, "teacher.embedded_guidance": 4.0, "teacher.text_length": 77,  # of flow models
}  # fmt: skip
# These touch no cache.
TOGETHER = {
    "teacher.config": "none",
    "student.method": "lora", "student.rank": 8, "student.prediction_type": "velocity", "student.ema_decay": 0.5,
    "student.ema_on": "cpu", "student.gradient_checkpointing": True, "optimizer.kind": "adafactor",
    "data.latents_gb": 40.0, "data.samples_per_prompt": 2, "data.sampling_steps": 3, "data.sampling_guidance": 2.0,
    "cache.uses": 1, "cache.max_gb": 0.2, "cache.prompts_gb": 0.02, "cache.prompts_memory_gb": 0.01,
    "optimizer.steps": 9, "optimizer.learning_rate": 1e-4, "optimizer.schedule": "cosine", "optimizer.warm_up": 2,
    "optimizer.betas": (0.8, 0.99), "optimizer.weight_decay": 0.1, "optimizer.clip": 0.5, "optimizer.loss": "huber",
    "optimizer.huber_c": 0.1, "optimizer.loss_weight": "end_point",
    "preview.every": 3, "preview.prompts": ["a boat"], "preview.seed": 1, "preview.teacher_steps": 2,
    "preview.teacher_guidance": 2.0, "preview.reference_steps": 9, "preview.student_steps": [4],
    "preview.student_guidance": 2.0,
    "validation.every": 7, "tracking.trackers": [], "tracking.project": "mine",
    "save.every": 50, "save.keep_deltas": 3, "save.keep_states": 2, "save.rank": 2,
    "save.precision": "float16", "save.name": "mine",
}  # fmt: skip
EVERY = ALONE | REFUSED | TOGETHER
WITH = {"teacher.float8": ["optimizer.precision"], "student.delta_rank": ["student.delta"]}  # or it is no configuration
# A state goes on with others of these; the teacher itself may not change.
FREE = {
    "teacher.config", "student.delta", "student.ema_on", "student.gradient_checkpointing", "data.latents_gb",
    "validation.every",
    "cache.max_gb", "cache.prompts_gb", "cache.prompts_memory_gb", "optimizer.steps", "optimizer.learning_rate",
    "optimizer.precision", "optimizer.channels_last",
    *(key for key in TOGETHER if key.startswith(("preview.", "save.", "tracking."))),
}  # fmt: skip


def test_every_key_is_tried():
    keys = set()
    for name, field in Config.model_fields.items():
        section = getattr(field.annotation, "model_fields", None)
        keys |= {f"{name}.{key}" for key in section} if section else {name}
    assert keys - {"output"} == EVERY.keys()


@pytest.fixture
def changed(folders, another_teacher):
    """The sections of a run on pictures, with other values for some keys."""

    def make(*keys: str) -> dict:
        values = {"data": {"kind": "folder", "path": str(folders / "some")}}
        for key in keys:
            section, _, name = key.rpartition(".")
            value = EVERY[key]
            if isinstance(value, str):
                value = {"teacher": str(another_teacher), "pictures": str(folders / "others")}.get(value, value)
            values |= {section: values.get(section, {}) | {name: value}} if section else {name: value}
        return values

    return make


@pytest.fixture
def begun(run, changed, tmp_path_factory):
    """The folder of a run that was killed before its first state, or after one; tests copy it."""

    def folder(name: str):
        path = tmp_path_factory.getbasetemp() / f"begun-{name}"
        if not path.exists():
            first = run(**changed() | {"output": str(path), "optimizer": {"steps": 1}})
            first.train() if name == "after" else shown(first)
        return path

    return folder


@pytest.fixture
def start_again(run, changed, begun, tmp_path, capfd):
    """Start once more where a run was killed, with other values for some keys, and once more without its caches.

    Both show the same. What is said is returned, and the files of the caches then and now.
    """

    def start(name: str, *keys: str):
        kept, empty = (shutil.copytree(begun(name), tmp_path / which) for which in ("kept", "empty"))
        then = times(kept)
        capfd.readouterr()
        found, said = outcome(run, output=str(kept), **changed(*keys)), capfd.readouterr().err
        for cache in ("endpoints", "latents", "prompts"):
            shutil.rmtree(empty / cache)
        assert_same(found, outcome(run, output=str(empty), **changed(*keys)))
        return found, said, then, times(kept)

    return start


def still_there(then: dict[str, int], now: dict[str, int]) -> bool:
    return all(now.get(path) == time for path, time in then.items())


@pytest.mark.parametrize("key", ALONE)
def test_a_key_that_a_cache_is_made_with(start_again, key):
    """A second start shows what one with empty caches shows, and says what it makes again and why."""
    found, said, then, now = start_again("before", key)
    assert found != "refused"
    assert not still_there(then, now)
    assert f"made with {key} = " in said or (key == "teacher.path" and "made with the teacher's" in said)


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_is_refused(run, changed, begun, tmp_path, key):
    kept = shutil.copytree(begun("before"), tmp_path / "kept")
    then = times(kept)
    assert outcome(run, output=str(kept), **changed(key)) == "refused"
    assert times(kept) == then


@pytest.mark.parametrize(
    ("start", "keys"),
    [("before", list(TOGETHER)), ("after", sorted(FREE & TOGETHER.keys()))],
    ids=["before a state", "after one"],
)
def test_keys_that_touch_no_cache(start_again, start, keys):
    """All of them at once: nothing is made again."""
    found, said, then, now = start_again(start, *keys)
    assert found != "refused"
    assert "made again" not in said
    assert still_there(then, now)


@pytest.mark.parametrize("key", sorted(FREE & ALONE.keys()))
def test_caches_made_again_after_a_state(start_again, key):
    found, said, then, now = start_again("after", key)
    assert found != "refused"
    assert not still_there(then, now)
    assert f"made with {key} = " in said


def test_the_keys_that_a_state_refuses(run, changed, begun, configuration, another_teacher):
    """With the facts that a start has: one with any other key changed is refused, and the key is named."""
    digests = run(**changed() | {"output": str(begun("after"))}).digests
    others = digests | teacher.load(parse(configuration(teacher={"path": str(another_teacher)})).teacher, 64).digests
    for key in EVERY:
        config = parse(configuration(**changed(key, *WITH.get(key, [])) | {"output": str(begun("after"))}))
        facts = made_with.of_run(config, others if key == "teacher.path" else digests, 1)
        if key in FREE:
            assert state.of_this_run(config, facts)
            continue
        with pytest.raises(TrainingError, match="the teacher's UNet" if key == "teacher.path" else re.escape(key)):
            state.of_this_run(config, facts)


def started_again(run, **changes):
    """A first start, whose caches stay; what is returned starts once more there, and once with empty caches."""
    shown(run(**changes))

    def again(tmp_path):
        assert_same(shown(run(**changes)), shown(run(output=str(tmp_path / "empty"), **changes)))

    return again


def test_pictures_added_and_captions_corrected(run, folders, tmp_path, capfd):
    pictures = shutil.copytree(folders / "some", tmp_path / "pictures")
    again = started_again(run, data={"kind": "folder", "path": str(pictures)})
    write_picture(pictures, "5", 11, "one more")
    again(tmp_path)
    said = capfd.readouterr().err
    assert "part-000000.safetensors was made with the pictures = " in said
    counts = re.search(
        r"process-0 is made again: it was made with the latents = '(\d+) of.+ it is '(\d+) of them", said
    )
    assert int(counts[2]) == int(counts[1]) + 1

    shutil.rmtree(tmp_path / "empty")
    latents = tmp_path / "run" / "latents" / "part-000000.safetensors"
    made = latents.stat().st_mtime_ns
    (pictures / "3.txt").write_text("corrected")
    again(tmp_path)
    assert latents.stat().st_mtime_ns == made
    assert "corrected" in json.loads(latents.with_suffix(".json").read_text())
    assert "process-0 is made again: it was made with the captions = " in capfd.readouterr().err


def test_pictures_taken_away(run, folders, tmp_path, monkeypatch):
    from training import prepared_latents

    monkeypatch.setattr(prepared_latents, "PART", 2)
    pictures = shutil.copytree(folders / "some", tmp_path / "pictures")
    again = started_again(run, data={"kind": "folder", "path": str(pictures)})
    for name in ("3", "4"):
        (pictures / f"{name}.png").unlink()
    again(tmp_path)
    assert len(list((tmp_path / "run" / "latents").iterdir())) == 4


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_broken_files_are_made_again(run, folders, tmp_path, capfd):
    """End points, embeddings, latents and captions that were cut off or overwritten."""
    again, kept = started_again(run, data={"kind": "folder", "path": str(folders / "some")}), tmp_path / "run"
    chunk, database = next(kept.rglob("chunk-000000.safetensors")), next(kept.rglob("*.sqlite"))
    part = next(kept.rglob("part-000000.safetensors"))
    cut(chunk)
    cut(database)
    capfd.readouterr()
    again(tmp_path)
    said = capfd.readouterr().err
    assert f"{chunk} is made again: it cannot be read (" in said
    assert f"{database} is made again: it cannot be read (" in said

    cut(part)
    part.with_suffix(".json").write_bytes(b"\xff")
    database.write_bytes(b"no database" * 100)
    again(tmp_path)
    said = capfd.readouterr().err
    assert "1 of 1 files to be made; part-000000.safetensors cannot be read (" in said
    assert f"{database} is made again: it cannot be read (" in said


def test_another_file_of_latents_under_the_same_name(run, latents_file, tmp_path):
    path = shutil.copy(latents_file, tmp_path / "mine.safetensors")
    shutil.copy(latents_file.with_suffix(".json"), tmp_path / "mine.json")
    again = started_again(run, data={"path": str(path)})
    safetensors.torch.save_file({"latents": -safetensors.torch.load_file(path)["latents"]}, path)
    again(tmp_path)


def test_another_teacher_under_the_same_path(run, teacher_folder, another_teacher, tmp_path):
    """Caches are made again; a state, whose student began with the old one, is refused."""
    path = shutil.copytree(teacher_folder, tmp_path / "teacher")
    again = started_again(run, teacher={"path": str(path)})
    shutil.rmtree(path / "unet")
    shutil.copytree(another_teacher / "unet", path / "unet")
    again(tmp_path)
    run(teacher={"path": str(path)}, optimizer={"steps": 1}).train()
    for part in ("unet", "vae", "text_encoder"):
        shutil.rmtree(path / part)
        shutil.copytree(teacher_folder / part, path / part)
    with pytest.raises(TrainingError, match=r"made with the teacher's UNet = .* and it is .* now"):
        run(teacher={"path": str(path)})


def test_a_teacher_that_moves_stays_the_same(run, teacher_folder, tmp_path, capfd):
    run(optimizer={"steps": 1}).train()
    moved = shutil.copytree(teacher_folder, tmp_path / "moved")
    os.utime(next(moved.glob("unet/*.safetensors")))
    capfd.readouterr()
    assert run(teacher={"path": str(moved)}).step == 1
    assert "made again" not in capfd.readouterr().err


def test_prompts_alone(run, tmp_path):
    """Each key changed alone: a second start shows what one with empty caches shows."""
    (tmp_path / "prompts.txt").write_text("a house\na boat\n")
    (tmp_path / "more.txt").write_text("a house\na tree\n")
    usual = {"kind": "prompts", "path": str(tmp_path / "prompts.txt"), "sampling_steps": 3}
    shown(run(data=usual))
    other = {"sampling_steps": 2, "sampling_guidance": 2.0, "samples_per_prompt": 3, "path": str(tmp_path / "more.txt")}
    for key, value in other.items():
        kept, data = shutil.copytree(tmp_path / "run", tmp_path / key), usual | {key: value}
        assert_same(shown(run(output=str(kept), data=data)), shown(run(output=str(kept / "empty"), data=data)))


def test_a_refused_start_leaves_the_caches(run, tmp_path):
    run(optimizer={"steps": 1}).train()
    before = times(tmp_path / "run")
    with pytest.raises(
        TrainingError, match=r"seed = 0, and it is 1 now; teacher\.guidance = 'cfg_sync', and it is 2\.5"
    ):
        run(seed=1, teacher={"guidance": 2.5})
    assert times(tmp_path / "run") == before


def test_end_points_of_another_run_are_made_again(run, tmp_path, capfd):
    """A file with the same row numbers from an output with another seed, and one that does not say what it is."""
    again = started_again(run)
    other = run(output=str(tmp_path / "other"), seed=1)
    shown(other)
    mine = tmp_path / "run" / "endpoints" / "process-0" / "round-0"
    shutil.copy(other.segments.folder / "process-0" / "round-0" / "chunk-000000.safetensors", mine)
    bare = mine / "chunk-000001.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(bare), bare)
    again(tmp_path)
    said = capfd.readouterr().err
    for name in ("chunk-000000", "chunk-000001"):
        assert f"{name}.safetensors is made again: it was made with other settings, or nothing tells" in said


def test_rows_are_known_by_their_numbers(run):
    trained = run()
    shown(trained)
    first, second = sorted(trained.segments.folder.glob("*/round-0/*.safetensors"))
    shutil.copy(second, first)
    with pytest.raises(TrainingError, match=r"chunk-000000\.safetensors holds other rows than 0 to 3"):
        shown(run())
