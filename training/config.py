"""The configuration of a run: a TOML file, every key checked."""

import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from perflow_core.sampling.parameterization import PredictionType
from perflow_core.training.reflow import LossWeight
from perflow_core.training.trajectory import Solver

from .prompts_file import prompts_in
from .stopping import TrainingError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST = 10**9  # of anything that is counted: more would overflow, or never end
Positive = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[float, Field(gt=0, le=MOST)]
Gigabytes = Annotated[float, Field(gt=0, le=1e6)]
Beta = Annotated[float, Field(ge=0, lt=1)]
WholePath = Annotated[int, Field(ge=1, le=999)]  # steps of a teacher from noise to data, whose table has 1000 entries


NAME_BYTES, PATH_BYTES = 255, 4095  # what file systems take


def _path(text: str) -> str:
    """Of a home folder, too."""
    if "\0" in text:
        raise ValueError("expected a path, which has no zero byte")
    of_shards = ":" in text or "{" in text  # addresses and lists of names, which may be longer
    longest = max(len(os.fsencode(name)) for name in text.split("/"))
    if not of_shards and (longest > NAME_BYTES or len(os.fsencode(text)) > PATH_BYTES):
        raise ValueError(f"expected a path of at most {PATH_BYTES} bytes, with names of at most {NAME_BYTES}")
    return os.path.expanduser(text)


PathText = Annotated[str, AfterValidator(_path)]
GivenPath = Annotated[str, Field(min_length=1), AfterValidator(_path)]


def _zero_as_in_the_node(guidance: Any) -> Any:
    """Train PeRFlow Delta has 0 for cfg_sync."""
    return "cfg_sync" if guidance == 0 and not isinstance(guidance, bool) else guidance


Guidance = Annotated[Literal["cfg_sync"] | Size, BeforeValidator(_zero_as_in_the_node)]


def _from_a_file(prompts: Any) -> Any:
    return prompts_in(prompts, "preview.prompts") if isinstance(prompts, str) else prompts


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TeacherConfig(Section):
    """The base model and how its trajectory is solved."""

    path: GivenPath  # a .safetensors checkpoint or a diffusers folder
    config: PathText = ""  # for a checkpoint: a diffusers folder of its kind, where the network has none to give
    # Of flow models alone. shift: of the path; auto as the scheduler has it for data.resolution, in all buckets.
    shift: Literal["auto"] | Size = "auto"
    embedded_guidance: Size = 3.5  # what a model is given that takes guidance as an input, as Flux does
    text_length: Annotated[int, Field(ge=0, le=4096)] = (
        0  # tokens of a prompt; 0: as many as the model's pipeline takes
    )
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = "auto"
    guidance: Guidance = "cfg_sync"  # a number is the teacher's CFG, which is learned; 0 is cfg_sync
    solver: Solver = "dpmpp_2m"
    solving_steps: WholePath = 4
    # Not of flow models. The number of ComfyUI's CLIP Set Last Layer: -1 takes the last layer of the text encoder, -2
    # the one before it; 0: the model's own, which is -1 for SD1.5 and -2 for SD2.x and SDXL.
    clip_skip: Annotated[int, Field(ge=-24, le=0)] = 0
    float8: bool = False  # its UNet's layers (a LoRA's base, too) in 8 bits; not with optimizer.precision "no"


class StudentConfig(Section):
    """The model that is trained, and what its output means."""

    method: Literal["full", "lora"] = "full"
    rank: Positive = 64  # of the LoRA
    prediction_type: Literal["auto"] | PredictionType = "auto"
    windows: Annotated[int, Field(ge=1, le=100)] = 4
    ema_decay: Share = 0.999  # of the running average, which deltas and previews have; 0: none, the weights themselves
    ema_on: Literal["card", "cpu"] = "card"  # where the running average is kept
    gradient_checkpointing: bool = False
    # A delta of the same kind of model to begin with (.safetensors), any that Apply PeRFlow Delta reads; empty: none.
    delta: PathText = ""
    delta_rank: Count = 0  # method full: keep so many directions of each weight of that delta; 0 keeps all of it


class PointsConfig(Section):
    """The timesteps at which the student is trained."""

    grid: Literal["coarse", "uniform"] = "coarse"
    per_window: Positive = 4  # coarse
    start_share: Share = 0.4  # coarse: how often a window's start
    N: Annotated[int, Field(ge=1, le=100_000)] = 1000  # uniform
    pure_noise: bool = False  # the first window starts at noise alone, as text to image does


class DataConfig(Section):
    """Pictures, latents, or prompts alone."""

    kind: Literal["folder", "kohya", "simpletuner", "webdataset", "latents", "prompts"]
    # A folder, SimpleTuner's multidatabackend.json, shards (with braces or *, or any address webdataset reads),
    # latents, or a text file of prompts.
    path: GivenPath
    caption: Annotated[str, Field(min_length=1)] = (
        "text"  # folder: the column of metadata.jsonl; webdataset: the ending of the caption's file
    )
    resolution: Annotated[int, Field(ge=64, le=16384, multiple_of=8)] = 512
    # Pictures keep about their shape, and a batch has one size: each is cut and resized to the nearest aspect ratio of
    # the sizes whose sides are multiples of bucket_step, of no larger area than a square of the resolution's. Or else
    # all become that square. Latents: files may then have such sizes.
    buckets: bool = False
    bucket_step: Annotated[int, Field(ge=8, le=16384, multiple_of=8)] = 64
    max_aspect: Annotated[float, Field(ge=1, le=1000)] = 4.0  # of a bucket, the long side to the short
    repeats: dict[str, Positive] = {}  # folder: how often an epoch has the pictures below a folder in path
    flip: bool = False  # pictures: mirrored ones, too
    prompt_dropout: Share = 0.1
    latents_gb: Gigabytes = 50.0  # pictures in folders, and prompts: the latents may take this much of the disk
    shuffle: Positive = 1000  # webdataset: samples to shuffle among
    samples_per_prompt: Positive = 1  # prompts
    sampling_steps: WholePath = 25  # prompts
    sampling_guidance: Size = 7.5  # prompts


class CacheConfig(Section):
    """End points on disk: how many at a time, and how often each is seen."""

    endpoints: Positive = 8192
    uses: Positive = 4
    max_gb: Gigabytes = 20.0
    teacher_batch: Positive = 32
    prompts_gb: Gigabytes = 4.0  # embeddings of prompts, for each process
    prompts_memory_gb: Annotated[float, Field(ge=0, le=1e6)] = 0.0  # of those, as much also in memory
    precision: Literal["float32", "float16"] = "float16"


class OptimizerConfig(Section):
    """The steps."""

    # adamw_8bit: bitsandbytes, on CUDA. adafactor: factored second moments, no first; the rate as with adamw.
    kind: Literal["adamw", "adamw_8bit", "adafactor"] = "adamw"
    steps: Positive
    batch_size: Positive  # of each process
    accumulation: Positive = 1
    learning_rate: Size = 1e-4
    schedule: Literal["constant_with_warmup", "cosine", "linear"] = "constant_with_warmup"
    warm_up: Count = 100
    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)  # of adamw; TOML has lists only
    weight_decay: Annotated[float, Field(ge=0, le=MOST)] = 0.01
    clip: Size = 1.0
    loss: Literal["mse", "huber"] = "mse"
    huber_c: Size = 0.001
    loss_weight: LossWeight = "none"  # see perflow_core/training/reflow.py
    precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = True


class PreviewConfig(Section):
    """Pictures on the way: the teacher beside the student, same noise."""

    every: Count = 500  # 0: none
    # Or the path of a text file, one prompt per line.
    prompts: Annotated[list[str], Field(min_length=1), BeforeValidator(_from_a_file)] = [
        "a lighthouse on a cliff at sunset"
    ]
    seed: Seed = 0
    teacher_steps: WholePath = 25
    teacher_guidance: Size = 7.5
    reference_steps: WholePath = 100  # of the teacher's trajectory that the student's end points are compared with
    student_steps: Annotated[list[WholePath], Field(min_length=1)] = [4, 8]
    student_guidance: Size = 4.5  # of the pictures; lower where teacher.guidance is a number, which is learned


class TrackingConfig(Section):
    """Where losses and previews are shown on the way."""

    trackers: list[Literal["tensorboard", "wandb"]] = ["tensorboard"]  # wandb is to be installed
    project: Annotated[str, Field(min_length=1)] = "perflow"  # of wandb


class ValidationConfig(Section):
    """The loss on examples that are not trained on, with the running average."""

    held_out: Count = 0  # examples, but not of shards; each is seen in every window; 0: none
    every: Positive = 500  # steps


class SaveConfig(Section):
    """Deltas for ComfyUI, and states to go on from."""

    every: Positive = 500  # a delta and a state
    keep_deltas: Count = 0  # the last ones of this run; 0: all
    keep_states: Positive = 1  # the last ones
    rank: Count = 0  # of the delta of a full student; 0 keeps all of it
    precision: Literal["float32", "float16", "bfloat16"] = "float16"
    name: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=50)] = "perflow"


class Config(Section):
    """A whole run. Paths are taken from the folder that the program is started in."""

    output: GivenPath
    seed: Seed = 0
    teacher: TeacherConfig
    student: StudentConfig = StudentConfig()
    points: PointsConfig = PointsConfig()
    data: DataConfig
    cache: CacheConfig = CacheConfig()
    optimizer: OptimizerConfig
    preview: PreviewConfig = PreviewConfig()
    validation: ValidationConfig = ValidationConfig()
    tracking: TrackingConfig = TrackingConfig()
    save: SaveConfig = SaveConfig()

    @model_validator(mode="after")
    def _check_keys_that_exclude_each_other(self) -> "Config":
        if wrong := "; ".join(_contradictions(self)):
            raise ValueError(wrong)
        return self


def _contradictions(config: Config) -> Iterator[str]:
    if config.teacher.float8 and config.optimizer.precision == "no":
        yield (
            'teacher.float8 is true with optimizer.precision "no", expected "bf16" or "fp16", to which the 8 bits are '
            "brought: choose one of these, or leave teacher.float8 out"
        )
    if config.student.delta_rank and not config.student.delta:
        yield (
            f"student.delta_rank is {config.student.delta_rank} without a delta: give student.delta or leave both out"
        )
    if config.data.buckets and config.data.bucket_step > config.data.resolution:
        yield (
            f"data.bucket_step is {config.data.bucket_step} with data.resolution {config.data.resolution}, expected at "
            "most that: lower it"
        )
    if config.validation.held_out and config.data.kind == "webdataset":
        yield (
            f'validation.held_out is {config.validation.held_out} with data.kind "webdataset", whose examples are not '
            "known before, expected 0: leave it out"
        )


FOLDERS = ("folder", "kohya", "simpletuner")  # the kinds of data that are pictures in folders

# Keys that do something only where another key has one of these values.
NEEDS: dict[str, tuple[str, tuple[str | bool, ...]]] = {
    "student.rank": ("student.method", ("lora",)),
    "student.delta_rank": ("student.method", ("full",)),
    "points.per_window": ("points.grid", ("coarse",)),
    "points.start_share": ("points.grid", ("coarse",)),
    "points.N": ("points.grid", ("uniform",)),
    "data.caption": ("data.kind", ("folder", "webdataset")),
    "data.repeats": ("data.kind", ("folder",)),
    "data.flip": ("data.kind", (*FOLDERS, "webdataset")),
    "data.buckets": ("data.kind", (*FOLDERS, "webdataset", "latents")),
    "data.bucket_step": ("data.buckets", (True,)),
    "data.max_aspect": ("data.buckets", (True,)),
    "data.latents_gb": ("data.kind", (*FOLDERS, "prompts")),
    "data.shuffle": ("data.kind", ("webdataset",)),
    "data.samples_per_prompt": ("data.kind", ("prompts",)),
    "data.sampling_steps": ("data.kind", ("prompts",)),
    "data.sampling_guidance": ("data.kind", ("prompts",)),
    "optimizer.betas": ("optimizer.kind", ("adamw", "adamw_8bit")),
    "optimizer.huber_c": ("optimizer.loss", ("huber",)),
    "save.rank": ("student.method", ("full",)),
}


# Keys that do something only where another key is above 0.
NEEDS_SOME = {
    "student.ema_on": "student.ema_decay",
    "validation.every": "validation.held_out",
    **{f"preview.{name}": "preview.every" for name in PreviewConfig.model_fields if name != "every"},
}


def without_effect(config: Config) -> str:
    """The sentence that names the keys that were given and do nothing in this configuration; empty for none."""

    def section(key: str) -> Any:
        return getattr(config, key.partition(".")[0])

    def value(key: str) -> Any:
        return getattr(section(key), key.partition(".")[2])

    def given(key: str) -> bool:
        return key.partition(".")[2] in section(key).model_fields_set

    found = [
        f"{key} (only with {other} = {' or '.join(map(_in_toml, values))})"
        for key, (other, values) in NEEDS.items()
        if given(key) and value(other) not in values
    ]
    found += [
        f"{key} (only with {other} above 0)" for key, other in NEEDS_SOME.items() if given(key) and not value(other)
    ]
    if given("tracking.project") and "wandb" not in config.tracking.trackers:
        found.append("tracking.project (only with wandb in tracking.trackers)")
    if given("teacher.config") and Path(config.teacher.path).is_dir():
        found.append("teacher.config (only with a checkpoint in teacher.path)")
    return f"Keys without effect in this configuration: {', '.join(found)}." if found else ""


def _in_toml(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def read(path: Path) -> Config:
    """The configuration in a TOML file. Raises TrainingError, naming the file and the key."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}): give the path of a configuration.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not valid TOML ({error}): correct it there.") from error
    return parse(values, str(path))


def parse(values: dict[str, Any], name: str = "the configuration") -> Config:
    """The same from a dictionary; `name` is what errors call it."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise TrainingError(f"{name}: " + "; ".join(_sentence(entry) for entry in error.errors()) + ".") from error


LONG = 80  # characters of a value that an error shows


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"] if not _is_branch(part))
    if error["type"] == "missing":
        return f"{key} is missing, add it"
    if error["type"] == "extra_forbidden":
        *section, wrong = error["loc"]
        model: Any = Config.model_fields[section[0]].annotation if section else Config
        near = difflib.get_close_matches(str(wrong), model.model_fields, 1)
        return f"{key} is not a configuration key" + (f", use {near[0]}" if near else ", remove it")
    if not key:  # `_contradictions`
        return str(error["ctx"]["error"])
    value = repr(error["input"])
    shown = value if len(value) <= LONG else f"{value[:LONG]} ..."
    if error["type"] == "model_type":
        return f"{key} is {shown}, expected a section [{key}]: write its keys below that"
    expected = error["msg"].removeprefix("Value error, ")
    return f"{key} is {shown}, {expected[:1].lower()}{expected[1:]}: correct it"


def _is_branch(part: Any) -> bool:
    """pydantic names the branches of a union, too."""
    return isinstance(part, str) and (part.startswith(("literal[", "constrained-")) or part in ("float", "int"))
