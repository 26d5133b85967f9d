"""Configurations: what is shipped can be read, and each mistake is named."""

import math
import re
from copy import deepcopy

import pytest

from training.config import NEEDS, NEEDS_SOME, Config, Section, parse, read, without_effect
from training.stopping import TrainingError


def test_the_shipped_ones_can_be_read(repository):
    paths = sorted((repository / "training" / "configs").glob("*.toml"))
    loras = ["sd15_lora_12gb", "sdxl_lora_12gb", "sdxl_lora_24gb"]
    flows = ["flux", "qwen_image", "sd35", "wan21", "z_image"]
    assert sorted(path.stem for path in paths) == sorted(["sd15", "sd21", "sdxl", "small", *loras, *flows])
    for path in paths:
        config = read(path)
        assert config.optimizer.steps >= 1000
        assert config.student.windows == 4
        assert without_effect(config) == ""


MISTAKES = [
    ({"optimizer": {"learnin_rate": 1}}, "optimizer.learnin_rate is not a configuration key, use learning_rate"),
    ({"colour": 1}, "colour is not a configuration key, remove it"),
    ({"optimizer": {"batch_size": 0}}, "optimizer.batch_size is 0, input should be greater than or equal to 1"),
    ({"optimizer": {"batch_size": "4"}}, "optimizer.batch_size is '4', input should be a valid integer"),
    ({"student": {"windows": 0}}, "student.windows is 0, input should be greater"),
    ({"student": {"prediction_type": "eps"}}, "student.prediction_type is 'eps', input should be 'auto'"),
    ({"data": {"kind": "video"}}, "data.kind is 'video', input should be 'folder', 'kohya'"),
    ({"data": {"prompt_dropout": 1.5}}, "data.prompt_dropout is 1.5, input should be less than or equal to 1"),
    ({"teacher": {"guidance": "much"}}, "teacher.guidance is 'much'"),
    ({"save": {"name": "a/b"}}, "save.name is 'a/b'"),
    ({"optimizer": {"betas": [0.9, 1.5]}}, "optimizer.betas.1 is 1.5, input should be less than 1"),
    ({"output": ""}, "output is '', string should have at least 1 character"),
    ({"preview": {"reference_steps": 1000}}, "preview.reference_steps is 1000, input should be less than or equal to"),
    ({"preview": {"teacher_steps": 1000}}, "preview.teacher_steps is 1000, input should be less than or equal to 999"),
    ({"data": {"sampling_steps": 1000}}, "data.sampling_steps is 1000, input should be less than or equal to 999"),
    ({"teacher": {"float8": True}}, 'teacher.float8 is true with optimizer.precision "no", expected "bf16"'),
    ({"student": {"delta_rank": 4}}, "student.delta_rank is 4 without a delta: give student.delta or leave both out"),
    (
        {"data": {"kind": "webdataset"}, "validation": {"held_out": 2}},
        'validation.held_out is 2 with data.kind "webdataset", whose examples are not known before',
    ),
    (
        {"optimizer": {"weight_decay": float("inf")}},
        "optimizer.weight_decay is inf, input should be less than or equal to 1000000000",
    ),
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
    (tmp_path / "latin.toml").write_bytes(b'output = "caf\xe9"')
    with pytest.raises(TrainingError, match=r"latin\.toml is not valid TOML"):
        read(tmp_path / "latin.toml")


def test_a_file_with_a_byte_order_mark(repository, tmp_path):
    shipped = repository / "training" / "configs" / "sd15.toml"
    marked = tmp_path / "marked.toml"
    marked.write_bytes(b"\xef\xbb\xbf" + shipped.read_bytes())
    assert read(marked) == read(shipped)


def test_prompts_of_previews_from_a_file(configuration, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa caf\xe9\n\n a boat \n".encode())
    assert parse(configuration(preview={"prompts": str(path)})).preview.prompts == ["a caf\xe9", "a boat"]
    path.write_text("\n")
    with pytest.raises(TrainingError, match=r"preview\.prompts .*prompts\.txt holds no prompts, expected one per line"):
        parse(configuration(preview={"prompts": str(path)}))
    with pytest.raises(TrainingError, match=r"preview\.prompts none\.txt cannot be read \(No such file"):
        parse(configuration(preview={"prompts": "none.txt"}))


def test_guidance_0_is_that_of_the_node(configuration):
    assert parse(configuration(teacher={"guidance": 0})).teacher.guidance == "cfg_sync"
    assert parse(configuration(teacher={"guidance": 0.0})).teacher.guidance == "cfg_sync"
    with pytest.raises(TrainingError, match=r"teacher\.guidance is -1"):
        parse(configuration(teacher={"guidance": -1}))


def test_paths_from_the_home_folder(configuration, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    teacher, student = {"path": "~/teacher", "config": "~/kind"}, {"delta": "~/delta"}
    config = parse(configuration(output="~/run", teacher=teacher, student=student))
    found = config.output, config.teacher.path, config.teacher.config, config.student.delta
    assert found == tuple(f"{tmp_path}/{name}" for name in ("run", "teacher", "kind", "delta"))


# A key, a value, the key that it needs, a value of that one with which it does nothing, and one with which it does.
NEEDY = [
    ("student.rank", 8, "student.method", "full", "lora"),
    ("student.delta_rank", 2, "student.method", "lora", "full"),
    ("student.ema_on", "cpu", "student.ema_decay", 0.0, 0.9),
    ("points.per_window", 2, "points.grid", "uniform", "coarse"),
    ("points.start_share", 0.5, "points.grid", "uniform", "coarse"),
    ("points.N", 500, "points.grid", "coarse", "uniform"),
    ("data.caption", "words", "data.kind", "prompts", "webdataset"),
    ("data.repeats", {"some": 2}, "data.kind", "kohya", "folder"),
    ("data.flip", True, "data.kind", "latents", "simpletuner"),
    ("data.buckets", True, "data.kind", "prompts", "latents"),
    ("data.bucket_step", 16, "data.buckets", False, True),
    ("data.max_aspect", 2.0, "data.buckets", False, True),
    ("data.latents_gb", 1.0, "data.kind", "webdataset", "prompts"),
    ("data.shuffle", 5, "data.kind", "folder", "webdataset"),
    ("data.samples_per_prompt", 2, "data.kind", "folder", "prompts"),
    ("data.sampling_steps", 3, "data.kind", "latents", "prompts"),
    ("data.sampling_guidance", 2.0, "data.kind", "latents", "prompts"),
    ("optimizer.betas", (0.8, 0.9), "optimizer.kind", "adafactor", "adamw"),
    ("optimizer.huber_c", 0.1, "optimizer.loss", "mse", "huber"),
    ("save.rank", 4, "student.method", "lora", "full"),
    ("preview.seed", 3, "preview.every", 0, 5),
    ("validation.every", 3, "validation.held_out", 0, 5),
    ("teacher.config", "kind", "teacher.path", ".", "model.safetensors"),
    ("tracking.project", "mine", "tracking.trackers", ["tensorboard"], ["wandb"]),
]


@pytest.mark.parametrize(("key", "value", "other", "idle", "busy"), NEEDY)
def test_keys_without_effect_are_said(configuration, key, value, other, idle, busy):
    def said(of_other) -> str:
        changes = {"student": {"delta": "some"}}  # which delta_rank needs
        for name, setting in ((other, of_other), (key, value)):
            section, _, name = name.partition(".")
            changes[section] = changes.get(section, {}) | {name: setting}
        return without_effect(parse(configuration(**changes)))

    assert said(idle).startswith(f"Keys without effect in this configuration: {key} (only with ")
    assert other in said(idle)
    assert said(busy) == ""


def test_every_needy_key_is_tried(configuration):
    tried = {key for key, *_ in NEEDY} - {"tracking.project", "teacher.config"}
    assert tried == NEEDS.keys() | {key for key in NEEDS_SOME if not key.startswith("preview.")} | {"preview.seed"}
    assert without_effect(parse(configuration())) == ""


ODD = [
    -1, 0, 10**30, 0.5, math.nan, math.inf, -math.inf, 1e300, "", "nonsense", "a\0b", "x" * 300, True, [], {}, [1, "a"],
]  # fmt: skip
SECTIONS = {
    name: field.annotation.model_fields
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    else {}
    for name, field in Config.model_fields.items()
}
KEYS = [*SECTIONS, *(f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys)]
USUAL = {
    "output": "run",
    "teacher": {"path": "model"},
    "data": {"kind": "prompts", "path": "prompts.txt"},
    "optimizer": {"steps": 2, "batch_size": 2},
}


ADVICE = re.compile(r"(: correct it|: write its keys below that|: give .*|, add it|: choose .*|leave .* out)\.$")
LARGE = (10**30, 1e300, math.inf)


@pytest.mark.parametrize("key", KEYS)
def test_odd_values_of_every_key(key):
    """Each is taken, or refused in a short sentence that names the key and says what to do; none is without end."""
    section, _, name = key.partition(".")
    for value in ODD:
        values = deepcopy(USUAL)
        if name:
            values.setdefault(section, {})[name] = value
        else:
            values[section] = value
        try:
            parse(values, "my.toml")
        except TrainingError as error:
            said = str(error)
            assert key in said
            assert "\n" not in said
            assert len(said) < 600, said
            assert ADVICE.search(said), said
        else:
            assert value not in LARGE
            assert value != "" or key in ("teacher.config", "student.delta")
            assert value not in ("a\0b", "x" * 300) or not (
                "path" in name or key in ("output", "student.delta", "teacher.config")
            )
