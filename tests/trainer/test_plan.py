"""What a run needs is computed as it is: beside what PyTorch's own profiler counts, and beside the files of a run."""

import dataclasses
import json
import re
import shutil
import tempfile
from pathlib import Path

import diffusers
import published_flows
import pytest
import safetensors.torch
import torch
from accelerate.state import AcceleratorState
from published_flows import numbers, published_folder
from torch.profiler import ProfilerActivity, profile
from trial.small_flow_teachers import MAKERS, make_flow_teacher
from trial.small_teachers import NARROW

from training import layouts, needs, peak_memory, planning, student
from training.config import TeacherConfig, parse, read
from training.segment_cache import EndPoints
from training.stopping import TrainingError
from training.teacher import Prompts
from training.unet_teacher import LORA_TARGETS

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


def allocated(call) -> int:
    """The most bytes that a call had allocated at a time, as the profiler records each allocation on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def unet(method: str) -> diffusers.UNet2DConditionModel:
    made = diffusers.UNet2DConditionModel(**NARROW, cross_attention_dim=768)
    if method == "lora":
        made.requires_grad_(False)
        student.add_adapter(made, 4, LORA_TARGETS)
    return made


def inputs(batch: int) -> dict[str, torch.Tensor]:
    return {
        "sample": torch.randn(batch, 4, 32, 32),
        "timestep": torch.ones(batch, dtype=torch.int64),
        "encoder_hidden_states": torch.randn(batch, 77, 768),
    }


KINDS = [("full", False, "bf16"), ("lora", False, "no"), ("lora", True, "bf16")]


@pytest.mark.parametrize(("method", "checkpointing", "precision"), KINDS)
def test_memory_of_a_step(method, checkpointing, precision):
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    real, given = unet(method), inputs(4)
    for module in real.modules():  # as autocast does on CUDA, and not on a CPU
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, args: tuple(value.float() for value in args))
    if checkpointing:
        real.enable_gradient_checkpointing()
    real.train()

    def step():
        with torch.autocast("cpu", dtype, enabled=precision != "no"):
            (output,) = real(**given, return_dict=False)
        output.float().square().mean().backward()

    found = [allocated(step), allocated(step)]  # the second one adds to the gradients of the first
    with torch.device("meta"):
        made, without_numbers = unet(method), inputs(4)

    def forward():
        return made(**without_numbers, return_dict=False)[0]

    gradients = sum(weight.nbytes for weight in made.parameters() if weight.requires_grad)
    computed = [peak_memory.of_step(made, forward, dtype, checkpointing, adding_up) for adding_up in (False, True)]
    held = (0, gradients)  # a step that adds up finds them there
    for ours, theirs, before in zip(computed, found, held, strict=True):
        assert theirs + before == pytest.approx(ours, rel=0.03)


@pytest.fixture(scope="module")
def flow_folder(tmp_path_factory):
    """(name) -> the folder of that small flow model."""
    base = tmp_path_factory.mktemp("flow-teachers")
    return lambda name: base / name if (base / name).is_dir() else make_flow_teacher(base / name, name)


@pytest.fixture
def flow(flow_folder, tmp_path):
    """(name, frames) -> what of a configuration trains that small flow model on latents, of so many frames."""

    def changes(name: str, *frames: int):
        path = tmp_path / "flow" / "latents.safetensors"
        path.parent.mkdir()
        safetensors.torch.save_file({"latents": torch.randn(4, 16, *frames, 8, 8)}, path)
        path.with_suffix(".json").write_text(json.dumps(["a house"] * 4))
        return {
            "teacher": {"path": str(flow_folder(name)), "solving_steps": 1, "text_length": 16},
            "data": {"kind": "latents", "path": str(path), "resolution": 64},
            "cache": {"endpoints": 4, "teacher_batch": 2, "prompts_gb": 0.1},
        }

    return changes


FLOW_KINDS = {
    "sd3.5": ("full", True),
    "flux": ("lora", False),
    "z-image": ("lora", True),
    "qwen-image": ("full", False),
    "wan2.1": ("lora", False),
}


@pytest.mark.parametrize("name", MAKERS)
def test_memory_of_a_flow_models_step(name, flow_folder, load_teacher, configuration):
    """In float32, where a CPU computes as CUDA does."""
    method, checkpointing = FLOW_KINDS[name]
    side = 128 if name == "sd3.5" else 256  # its table of positions ends there
    values = configuration(
        teacher={"path": str(flow_folder(name)), "text_length": 48},
        student={"method": method, "rank": 4, "gradient_checkpointing": checkpointing},
        data={"resolution": side},
    )
    config = parse(values)
    ours = layouts.of_teacher(config.teacher, side).teacher
    theirs = load_teacher(config.teacher, side)
    tokens, width, pooled = theirs.prompt_size
    assert ours.prompt_size == theirs.encode_prompts(["a house"])[0].shape[1:] + (pooled,)
    assert ours.latent_shape == theirs.latent_shape
    found = {}
    for teacher, device in ((theirs, "cpu"), (ours, "meta")):
        made = student.make(config, teacher)

        def forward(made=made, teacher=teacher, device=device):
            with torch.device(device):
                prompts = Prompts(torch.ones(2, tokens, width), torch.ones(2, pooled))
                z, T = torch.ones(2, *teacher.latent_shape), torch.full((2,), 500.0)
            return teacher.network(made, prompts, None, torch.float32)(z, T)[0]

        found[device] = made, forward
    forward = found["cpu"][1]
    # Qwen-Image's tables of positions are no buffers, so that they come to a card with the first call, and stay.
    tables = 2 * 4096 * 64 * torch.complex64.itemsize if name == "qwen-image" else 0
    counted = tables + allocated(lambda: forward().float().square().mean().backward())
    computed = peak_memory.of_step(*found["meta"], torch.float32, checkpointing, adding_up=False)
    assert counted == pytest.approx(computed, rel=0.03)
    if method == "lora":
        with torch.no_grad(), theirs.without_adapter(), ours.without_adapter():
            counted = allocated(forward)
            computed = peak_memory.of_inference(*found["meta"], torch.float32)
        assert counted == pytest.approx(computed, rel=0.03)


@pytest.mark.parametrize(("name", "frames", "changes"), [
    ("sd3.5", (), {"student": {"ema_decay": 0.9}, "optimizer": {"steps": 1, "batch_size": 2}}),
    ("wan2.1", (3,), {"student": {"method": "lora", "rank": 2}, "optimizer": {"steps": 1, "precision": "bf16"}}),
])  # fmt: skip
def test_what_a_flow_model_keeps_and_writes(run, flow, tmp_path, name, frames, changes):
    trained = run(**flow(name, *frames) | changes)
    needed = needs.of(trained.config, traced=False)
    trained.train()
    network, weights = trained.teacher.unet, student.trainable(trained.unet)
    frozen = [tensor for tensor in [*network.parameters(), *network.buffers()] if not tensor.requires_grad]
    assert needed.kept["the teacher's network"] == sum(tensor.nbytes for tensor in frozen)
    tables = list(trained.unet.buffers()) if trained.base else []
    assert needed.kept["trained weights"] == sum(tensor.nbytes for tensor in [*weights, *tables])
    helpers = [trained.teacher.vae, *trained.teacher.text_encoders]
    assert needed.ram["text encoders and VAE"] == sum(needs._bytes(part) for part in helpers)
    chunks = list((tmp_path / "run" / "endpoints").rglob("chunk-*"))
    assert safetensors.torch.load_file(chunks[0])["x0"].shape[1:] == (16, *frames, 8, 8)
    written = sum(path.stat().st_size for path in chunks)
    assert needed.disk["end points"] == pytest.approx(written, rel=0.2)
    (delta,) = (tmp_path / "run" / "deltas").iterdir()
    assert needed.disk["deltas"] <= delta.stat().st_size * 1.2


@pytest.mark.parametrize(("name", "frames"), [("flux", ()), ("qwen-image", ()), ("wan2.1", (3,))])
def test_a_plan_of_a_flow_model(configuration, flow, tmp_path, name, frames):
    """It measures on latents of the model's own shape."""
    changes = flow(name, *frames)
    before = sorted(tmp_path.rglob("*"))
    said = []
    AcceleratorState._reset_state(True)
    planning.plan_run(parse(configuration(**changes, student={"method": "lora"})), said.append)
    assert re.search(r"Measured: \S+ s a step, \S+ s for a row .*\n +\d+\.\d\d  hours for the run", "".join(said))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_flow_model_beside_its_folder(configuration, flow, flow_folder, tmp_path):
    """A single file's sizes are its folder's, and it is read beside what is made of it."""
    changes, folder = flow("sd3.5"), flow_folder("sd3.5")
    file = tmp_path / "fine-tuned.safetensors"
    shutil.copy(next((folder / "transformer").glob("*.safetensors")), file)
    alone = needs.of(parse(configuration(**changes)), traced=False)
    changes["teacher"] |= {"path": str(file), "config": str(folder)}
    beside = needs.of(parse(configuration(**changes)), traced=False)
    assert beside.kept == alone.kept
    assert beside.disk == alone.disk
    loading, less = beside.ram_moments["loading"], alone.ram_moments["loading"]
    assert loading - less == file.stat().st_size or less == 0


def test_a_flow_model_that_cannot_be_planned(configuration, flow, flow_folder, tmp_path):
    """As where it is loaded."""
    for part, sentence in (
        (
            "transformer/config.json",
            r"cannot be loaded \(.*config\.json.*expected a complete diffusers folder of a Flux",
        ),
        ("model_index.json", r"model_index\.json does not name a pipeline"),
    ):
        folder = shutil.copytree(flow_folder("flux"), tmp_path / part.replace("/", "-"))
        (folder / part).unlink()
        with pytest.raises(TrainingError, match=sentence):
            layouts.of_teacher(TeacherConfig(path=str(folder)), 64)


def test_with_fsdp_the_card_stops_nothing(configuration, monkeypatch):
    """What is computed is of one whole process, and the plan says so."""
    config = parse(configuration())
    needed = needs.of(config)
    small = needs.Place(card=1 << 20, ram=ENOUGH, disk=ENOUGH)
    needs.check(needed, small, config.output, sharded=True)
    with pytest.raises(TrainingError, match="GB on the card"):
        needs.check(needed, small, config.output)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(planning, "measure", lambda config: planning.Pace(1.0, 0.5, None))
    monkeypatch.setattr(needs.Place, "here", lambda config, device: small)
    said = []
    planning.plan_run(config, said.append)
    assert "FSDP spreads them over the cards" in "".join(said)


@pytest.mark.parametrize("changes", [
    {"optimizer": {"steps": 2}, "save": {"every": 1, "rank": 2}},
    {
        "student": {"method": "lora", "rank": 8, "ema_on": "cpu"}, "teacher": {"float8": True},
        "optimizer": {"steps": 2, "kind": "adafactor", "precision": "bf16"},
    },
])  # fmt: skip
def test_what_is_kept_and_what_is_written(run, changes):
    trained = run(**changes)
    config = trained.config
    needed = needs.of(config, traced=False)
    assert needed.moments == {}
    trained.train()
    kept, unet = needed.kept, trained.teacher.unet
    frozen = [weight for weight in unet.parameters() if not weight.requires_grad]
    assert kept["the teacher's network"] == sum(weight.nbytes for weight in frozen)
    weights = student.trainable(trained.unet)
    assert kept["trained weights"] == sum(weight.nbytes for weight in weights)
    states = [value for state in trained.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    assert kept["the optimizer's averages"] == sum(value.nbytes for value in states if value.ndim)
    average = kept["the running average"] or needed.ram["the running average"]
    assert average == sum(value.nbytes for value in trained.ema.shadow_params)
    helpers = [trained.teacher.vae, *trained.teacher.text_encoders]
    assert needed.ram["text encoders and VAE"] == sum(
        tensor.nbytes for part in helpers for tensor in [*part.parameters(), *part.buffers()]
    )
    assert needed.ram["the weights that a delta is the difference to"] == sum(w.nbytes for w in trained.base.values())

    def written(name: str) -> int:
        return sum(path.stat().st_size for path in (trained.segments.folder.parent / name).rglob("*.*"))

    assert (needed.samples, needed.rows) == (8, 16)
    assert needed.disk["states, and the next one"] == pytest.approx(2 * written("states"), rel=0.1)
    files = (trained.segments.folder.parent / "deltas").iterdir()
    deltas = sum(weight.nbytes for path in files for weight in safetensors.torch.load_file(path).values())
    # In low rank the first of two holds less: its step had a rate of zero, as the warm-up begins.
    assert 0.99 * deltas < needed.disk["deltas"] < (1.4 if config.save.rank else 1.01) * deltas
    assert needed.disk["end points"] == pytest.approx(written("endpoints"), rel=0.2)
    assert written("prompts") < needed.disk["embeddings of prompts"] * 1.1 + 20_000  # of the database itself


# Numbers of the published models: of the UNet, and of the text encoders and the VAE that come with it.
PUBLISHED = {
    "SD1.5": (768, 859_520_964, 123_060_480),
    "SD2.x": (1024, 865_910_724, 340_387_840),
    "SDXL": (2048, 2_567_463_684, 817_720_320),
}
VAE_NUMBERS = 83_653_863


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a family, with the header of one and no numbers on the disk."""

    def make(family: str, missing: int = 0):
        context, unet, texts = PUBLISHED[family]
        path = tmp_path_factory.mktemp("checkpoint") / f"{family}.safetensors"
        to_k = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
        shapes = {
            to_k: (1, context),
            "model.diffusion_model.out.0.weight": (320,),
            "model.diffusion_model.rest": (unet - context - 320 - missing,),
            "first_stage_model.all": (VAE_NUMBERS,),
            "cond_stage_model.transformer.text_model.all": (texts,),
        }
        write_sparse(path, shapes)
        return path

    return make


def write_sparse(path, shapes) -> None:
    """Of float16 numbers that are all zero, but for those of norms."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.seek(header["model.diffusion_model.out.0.weight"]["data_offsets"][0], 1)
        file.write(torch.ones(320, dtype=torch.float16).numpy().tobytes())
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize("family", PUBLISHED)
def test_layouts_of_checkpoints(checkpoint, family):
    teacher = layouts.of_teacher(TeacherConfig(path=str(checkpoint(family))), 512).teacher
    context, unet, texts = PUBLISHED[family]
    assert (numbers(teacher.unet), numbers(teacher.vae)) == (unet, VAE_NUMBERS)
    assert teacher.prompt_size == (77, context, 1280 if family == "SDXL" else 0)
    assert sum(map(numbers, teacher.text_encoders)) == texts


def test_a_checkpoint_of_another_layout(checkpoint):
    path = checkpoint("SD1.5", missing=8)
    with pytest.raises(TrainingError, match=r"its UNet has 859520956 numbers and one of its kind, SD1\.5, 859520964"):
        layouts.of_teacher(TeacherConfig(path=str(path)), 512)


ENOUGH = 1 << 50
TOO_SMALL = [
    ({"card": 1 << 20}, r"GB on the card, of which 0\.00105 are free, most of it for .* GB\): lower "),
    ({"ram": 1 << 20}, r"GB of RAM, of which 0\.00105 are free, most of it for the program"),
    ({"disk": 1 << 10}, r"GB of disk in .*, where 1\.02e-06 are free, most of it for .*: free disk space"),
]


@pytest.mark.parametrize(("short", "sentence"), TOO_SMALL)
def test_what_does_not_fit_is_named(configuration, short, sentence):
    config = parse(configuration())
    needed = needs.of(config)
    there = {"card": ENOUGH, "ram": ENOUGH, "disk": ENOUGH}
    needs.check(needed, needs.Place(**there), config.output)
    with pytest.raises(TrainingError, match=sentence):
        needs.check(needed, needs.Place(**there | short), config.output)


def test_on_a_cpu_the_largest_may_be_what_a_card_has(configuration):
    """The advice is for that part, and a LoRA run is not told to train a LoRA."""
    for method in ("full", "lora"):
        config = parse(configuration(student={"method": method}))
        needed = dataclasses.replace(needs.of(config, traced=False), moments={"activations of a step": 1 << 40})
        place = needs.Place(card=None, ram=1 << 20, disk=ENOUGH)
        with pytest.raises(TrainingError, match=r"most of it for activations .*, or lower optimizer\.batch") as error:
            needs.check(needed, place, config.output)
        assert ('student.method to "lora"' in str(error.value)) == (method == "full")
    with pytest.raises(TrainingError, match=r"the program \(2\.5 GB\): close other programs\.$"):
        needs.check(needed, dataclasses.replace(place, card=ENOUGH * 2), config.output)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"cache": {"endpoints": 10**9}}, r"for end points of a round .*, or lower cache\.endpoints, "),
    ({"optimizer": {"accumulation": 10**8}}, r"for end points of a round .* or optimizer\.accumulation\."),
    ({"student": {"method": "lora", "rank": 10**8}}, r"for a delta or a state .*, or lower student\.rank\."),
    ({"cache": {"prompts_memory_gb": 1e6}}, r"for prompts in memory .*, or lower cache\.prompts_memory_gb\."),
])  # fmt: skip
def test_the_advice_is_for_what_takes_most(configuration, changes, sentence):
    config = parse(configuration(**changes))
    with pytest.raises(TrainingError, match=sentence):
        needs.check(needs.of(config, traced=False), needs.Place(None, 1 << 34, 1 << 62), config.output)


def test_a_short_run_has_no_more_rounds_than_it_makes(configuration):
    config = parse(configuration(optimizer={"steps": 4}, save={"every": 10**6}))
    assert EndPoints.of(config, 4, (4, 8, 8)).kept == 1
    longer = parse(configuration(optimizer={"steps": 25}, save={"every": 10**6}))
    assert EndPoints.of(longer, 4, (4, 8, 8)).kept == 4  # of 8 steps each
    needs_much = needs.of(longer, traced=False).disk["end points"]
    assert needs_much == EndPoints.of(longer, 4, (4, 8, 8)).on_disk


def test_embeddings_have_the_precisions_bytes(configuration):
    sizes = {
        precision: needs.of(
            parse(configuration(optimizer={"precision": precision}, cache={"prompts_gb": 1.0})), traced=False
        ).disk["embeddings of prompts"]
        for precision in ("no", "bf16", "fp16")
    }
    assert sizes["no"] == 2 * sizes["bf16"] == 2 * sizes["fp16"] > 0


@pytest.mark.parametrize("context", [None, [768, 768]])
def test_a_folder_without_one_context(teacher_folder, tmp_path, context):
    folder = shutil.copytree(teacher_folder, tmp_path / "teacher")
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": context}))
    with pytest.raises(layouts.UnknownLayoutError, match=r"its UNet has cross_attention_dim .*, expected one number"):
        layouts.of_teacher(TeacherConfig(path=str(folder)), 64)


def test_a_run_that_cannot_fit_does_not_begin(run, tmp_path):
    with pytest.raises(TrainingError, match=r"needs up to .* GB of disk .* most of it for deltas"):
        run(optimizer={"steps": 10**9}, save={"every": 1})
    assert list((tmp_path / "run").iterdir()) == []


def test_a_plan_is_said_and_leaves_nothing(configuration, tmp_path):
    config = parse(configuration(optimizer={"accumulation": 2}, preview={"every": 2}))
    said = []
    planning.plan_run(config, said.append)
    plan = "".join(said)
    assert "4 steps of 8 samples: 32 samples on 16 trajectories" in plan
    for line in ("the optimizer's averages", "activations and gradients of a step", "previews, the VAE", "deltas"):
        assert re.search(rf"^ +\d+\.\d\d  {line}", plan, re.MULTILINE), line
    assert re.search(r"at most, and \d+\.\d\d are free", plan)
    assert re.search(r"Measured: \S+ s a step, \S+ s for a row .*\n +\d+\.\d\d  hours for the run, \d+ % of them", plan)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_refuses_the_output_that_the_run_refuses(run, configuration, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(TrainingError, match=r"output .*file.* cannot be a folder"):
        planning.plan_run(parse(configuration(output=str(file / "below"))), str)
    run(optimizer={"steps": 1}).train()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a run of this session needs no more there
    with pytest.raises(TrainingError, match=r"made with seed = 0, and it is 1 now"):
        planning.plan_run(parse(configuration(seed=1)), str)


def test_a_plan_of_two_processes(configuration, monkeypatch):
    """Said by the first alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(planning, "measure", lambda config: planning.Pace(1.0, 0.5, None))
    said = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        lines = []
        planning.plan_run(parse(configuration()), lines.append)
        said[rank] = "".join(lines)
    assert "4 steps of 8 samples: 32 samples on 16 trajectories" in said["0"]
    assert "buckets to exchange gradients" in said["0"]
    assert "at most, of 2 processes, and " in said["0"]
    assert said["1"] == ""


ROW = re.compile(r"^\| `(\w+)\.toml`.* \| (\d+) GB \| (.+) \|$", re.MULTILINE)
TRACED = ("sd15", "sd15_lora_12gb")  # the others take longer, up to half a minute


@pytest.mark.parametrize(("name", "card", "cells"), ROW.findall(DOCUMENT.read_text(encoding="utf-8")))
def test_the_documents_memory_of_the_shipped_configurations(
    checkpoint, flow_folder, repository, monkeypatch, tmp_path, name, card, cells
):
    monkeypatch.chdir(tmp_path)
    values = read(repository / "training" / "configs" / f"{name}.toml").model_dump()
    (tmp_path / values["data"]["path"]).mkdir(parents=True)  # data that take no room
    if flow := published_flows.PUBLISHED.get(name):
        path = published_folder(flow_folder(flow.name), tmp_path / name, flow)
        teacher = layouts.of_teacher(TeacherConfig(path=str(path)), 1024).teacher
        found = numbers(teacher.unet), sum(map(numbers, teacher.text_encoders))
        assert found == pytest.approx(flow.numbers, rel=1e-3)
    else:
        path = checkpoint({"sd15": "SD1.5", "sd21": "SD2.x", "sdxl": "SDXL"}[name.split("_")[0]])
    values["teacher"]["path"] = str(path)
    needed = needs.of(parse(values), traced=name in TRACED)
    kept, beside, most, ram, disk, samples = (float(cell.replace(",", "")) for cell in cells.split("|"))
    assert most == pytest.approx(kept + beside + needs.RESERVE / 1e9, abs=0.11)
    assert most < 0.93 * float(card)
    place = needs.Place(card=ENOUGH, ram=ENOUGH, disk=ENOUGH)
    found = [sum(needed.kept.values()) / 1e9, needs.in_ram(needed, place) / 1e9, sum(needed.disk.values()) / 1e9]
    assert [round(size, 1) for size in found] == [kept, ram, disk]
    assert needed.samples == samples
    if name in TRACED:
        assert (needed.card + needs.RESERVE) / 1e9 == pytest.approx(most, abs=0.06)
