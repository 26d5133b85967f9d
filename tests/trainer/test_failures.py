"""What goes wrong is said in one sentence, and nothing good is lost."""

import json
import resource
import subprocess
import sys

import pytest
import torch
from PIL import Image
from training_results import read
from trial.small_teachers import NARROW, make_teacher

from training import teacher as teachers
from training.config import TeacherConfig
from training.output import LOCKS
from training.stopping import TrainingError


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def load(path, **options):
    return teachers.load(TeacherConfig(path=str(path), **options), 64)


def test_nan_stops_the_run_and_keeps_the_last_good_state(run):
    trained = run(optimizer={"steps": 9}, save={"every": 3})
    step = trained._one_step

    def damage_in_the_sixth():
        if trained.step == 5:
            with torch.no_grad():
                next(trained.unet.parameters())[0] = float("nan")
        return step()

    trained._one_step = damage_in_the_sixth
    with pytest.raises(TrainingError) as error:
        trained.train()
    assert "is NaN at step 6; the last good state is" in one_sentence(error)
    assert "step-00000003" in str(error.value)
    again = run(optimizer={"steps": 9}, save={"every": 3})
    assert again.step == 3
    again.train()


def test_a_full_disk(run):
    trained = run(optimizer={"steps": 4}, save={"every": 2})
    step, limit = trained._one_step, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk_in_the_fourth():
        report = step()
        if trained.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limit[1]))
        return report

    trained._one_step = fill_the_disk_in_the_fourth
    try:
        with pytest.raises(TrainingError) as error:
            trained.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    text = one_sentence(error)
    assert "state after step 4 cannot be written" in text
    assert "step-00000002, stays: free disk space" in text
    again = run(optimizer={"steps": 4}, save={"every": 2})
    assert again.step == 2
    again.train()


def test_a_full_disk_while_end_points_are_written(run):
    trained, limit = run(), resource.getrlimit(resource.RLIMIT_FSIZE)
    derivative = trained.teacher.derivative

    def fill_the_disk(*given):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        return derivative(*given)

    trained.teacher.derivative = fill_the_disk
    try:
        with pytest.raises(TrainingError, match=r"chunk-000000\.safetensors cannot be written .*free disk") as error:
            next(trained.segments.batches(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    one_sentence(error)


def test_a_full_disk_while_the_delta_is_written(run):
    trained = run(optimizer={"steps": 1})
    path = trained.train()
    delta, metadata = read(path)
    path.unlink()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limit[1]))
    try:
        with pytest.raises(TrainingError, match=r"perflow-000001\.safetensors cannot be written .*free disk space"):
            trained._delta()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(path.parent.iterdir()) == []
    again = read(trained._delta())
    assert again[1] == metadata
    assert all(torch.equal(again[0][key], delta[key]) for key in delta)


@pytest.mark.parametrize("what", ["latents", "captions", "preview"])
def test_a_full_disk_while_files_are_written(run, tmp_path, what):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (80 * i, 90, 30)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text("long " * 1000)
    changes = {"data": {"kind": "folder", "path": str(pictures)}}
    changes["preview"] = {"every": 1, "teacher_steps": 1, "reference_steps": 1, "student_steps": [1]}
    trained, limit = run(**changes), resource.getrlimit(resource.RLIMIT_FSIZE)
    trained.preview._embedded()
    latents = tmp_path / "run" / "latents" / "part-000000.safetensors"
    if what == "latents":
        latents.unlink()
    if what == "captions":
        latents.with_suffix(".json").unlink()
    size = {"latents": 1000, "captions": 10_000, "preview": 1000}[what]  # what is said goes to a file, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        with pytest.raises(TrainingError, match=r"cannot be written \(.*\): free disk space and start again") as error:
            trained._show() if what == "preview" else trained._latents(0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    one_sentence(error)
    run(**changes)


def test_too_much_for_the_bounds(run):
    with pytest.raises(TrainingError, match=r"end points need .* GB .*cache\.max_gb = 1e-05: raise it"):
        run(cache={"max_gb": 1e-5})


def test_wrong_windows(run):
    with pytest.raises(TrainingError, match=r"points with student\.windows = 100: 20 points in each of 100 windows"):
        run(student={"windows": 100}, points={"per_window": 20})
    with pytest.raises(TrainingError, match="3 time points for 4 windows"):
        run(points={"grid": "uniform", "N": 3})
    with pytest.raises(
        TrainingError, match=r"teacher\.solving_steps: 60 steps in each of 20 windows, expected 1 to 49"
    ):
        run(student={"windows": 20}, points={"per_window": 2}, teacher={"solving_steps": 60})


def test_an_output_that_is_a_file(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TrainingError, match=r"output .*file.* cannot be a folder"):
            run(output=str(output))
    assert (tmp_path / "file").read_text() == "mine"


def test_two_runs_in_one_output(run, tmp_path):
    """While another process has its lock."""
    code = (
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print(flush=True); input()"
    )
    (tmp_path / "run").mkdir()
    lock = str(tmp_path / "run" / LOCKS.format(0))
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(TrainingError, match=r"Another run is writing into .*run: wait until it has ended") as error:
            run()
        other.communicate(b"\n")
    one_sentence(error)
    run()
    run()  # those of one process follow each other


@pytest.mark.parametrize("method", ["full", "lora"])
def test_float16_on_a_cpu(run, method):
    with pytest.raises(TrainingError, match=r'optimizer\.precision is "fp16" on a CPU'):
        run(student={"method": method}, optimizer={"precision": "fp16"})


def test_gradients_that_always_overflow_float16_end(run):
    """Their scale falls with each, and the run ends at the node's bound; a GPU's scaler, on a CPU."""
    from accelerate.optimizer import AcceleratedOptimizer

    trained, scaler = run(optimizer={"steps": 100, "warm_up": 1}), torch.amp.GradScaler("cpu")
    trained.optimizer = AcceleratedOptimizer(trained.optimizer.optimizer, device_placement=False, scaler=scaler)
    trained.descent.optimizer = trained.optimizer
    trained.accelerator.scaler = trained.descent.scaler = scaler
    before = [weight.detach().clone() for weight in trained.unet.parameters()]
    backward = trained.descent.backward
    trained.descent.backward = lambda loss: backward(loss * torch.inf)
    with pytest.raises(TrainingError, match=r"NaN at step \d+; no state was saved before") as error:
        trained.train()
    one_sentence(error)
    assert 20 < trained.step < 30
    assert all(map(torch.equal, before, trained.unet.parameters()))


def test_states_of_other_versions(run, tmp_path):
    trained = run(optimizer={"steps": 1})
    trained.train()
    path = tmp_path / "run" / "states" / "step-00000001" / "run.json"
    note = json.loads(path.read_text())
    older = {"step": 1, "place": [""], "config": {"seed": 0}}
    newer = note | {"made_with": note["made_with"] | {"student.colour": "red"}}
    unread = "{"
    for text, sentence in [
        (json.dumps(older), r"written by another version of this program, in which \d\d facts differ"),
        (
            json.dumps(newer),
            r"another version of this program, in which 1 facts differ, such as student\.colour: go on",
        ),
        (unread, r"run\.json cannot be read"),
    ]:
        path.write_text(text)
        with pytest.raises(TrainingError, match=sentence) as error:
            run(optimizer={"steps": 2})
        one_sentence(error)


NO_DATA = [
    ({"kind": "latents", "path": "none"}, "data.path none has no .safetensors file"),
    ({"kind": "folder", "path": "none"}, "none is no folder"),
    ({"kind": "folder", "path": "empty"}, "empty holds no pictures"),
    ({"kind": "webdataset", "path": "none-{0..3}.tar"}, "the shard none-0.tar is not there"),
    ({"kind": "webdataset", "path": "none-{0..3.tar"}, "data.path none-{0..3.tar cannot be used (Unbalanced braces"),
    ({"kind": "webdataset", "path": "{0..9999999999}.tar"}, "names 10000000000 shards, expected at most 100000"),
    ({"kind": "prompts", "path": "none.txt"}, "data.path none.txt cannot be read"),
]


def test_a_teacher_that_is_no_regular_file():
    with pytest.raises(TrainingError, match=r"^The teacher /dev/null cannot be read \(.*\): give a \.safetensors"):
        load("/dev/null")


@pytest.mark.parametrize(("data", "sentence"), NO_DATA)
def test_no_data(run, tmp_path, monkeypatch, data, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError) as error:
        run(data=data)
    assert sentence in one_sentence(error)


def test_latents_without_their_captions(run, latents_file, tmp_path):
    path = tmp_path / "latents.safetensors"
    path.write_bytes(latents_file.read_bytes())
    with pytest.raises(TrainingError, match=r"latents\.json beside it"):
        run(data={"path": str(path)})
    path.with_suffix(".json").write_text('["one"]')
    with pytest.raises(TrainingError, match=r"holds 20 latents and latents\.json 1 captions"):
        run(data={"path": str(path)})


def test_teachers_of_another_kind(teacher_folder, tmp_path):
    import diffusers

    def changed(name: str, folder: str, file: str, **values):
        """A copy of the teacher by links, with other values in one of its configurations."""
        copy = tmp_path / name
        for path in teacher_folder.rglob("*"):
            if path.is_file():
                target = copy / path.relative_to(teacher_folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)
        config = copy / folder / file
        old = json.loads(config.read_text())
        config.unlink()
        config.write_text(json.dumps(old | values))
        return copy

    scheduler = ("scheduler", "scheduler_config.json")
    sample = changed("sample", *scheduler, prediction_type="sample")
    flow = changed("flow", *scheduler, _class_name="FlowMatchEulerDiscreteScheduler")
    zero = changed("zero", *scheduler, rescale_betas_zero_snr=True)
    inpainting = changed("inpainting", *scheduler)
    diffusers.UNet2DConditionModel(**NARROW, cross_attention_dim=768, in_channels=9).save_pretrained(
        inpainting / "unet2"
    )
    (inpainting / "unet").rename(inpainting / "unet1")
    (inpainting / "unet2").rename(inpainting / "unet")
    for path, sentence in [
        (sample, 'it predicts "sample"'),
        (flow, "FlowMatchEulerDiscreteScheduler has no table of 1000 noise levels"),
        (zero, "its noise table ends at zero signal"),
        (inpainting, "its UNet has 9 input channels"),
    ]:
        with pytest.raises(TrainingError) as error:
            load(path)
        assert sentence in one_sentence(error)
        assert "expected a Stable Diffusion 1.5, 2.x or SDXL model that predicts noise or v" in str(error.value)


def test_teachers_that_cannot_be_loaded(teacher_folder, tmp_path):
    with pytest.raises(TrainingError, match="is not there"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(TrainingError, match=r"has no unet/config\.json"):
        load(tmp_path)
    (tmp_path / "page.safetensors").write_bytes(b"<!doctype html>" + b" " * 100)
    with pytest.raises(TrainingError, match="it is a web page"):
        load(tmp_path / "page.safetensors")
    with pytest.raises(TrainingError, match="is of another kind"):
        load(next((teacher_folder / "vae").glob("*.safetensors")))
    broken = make_teacher(tmp_path / "broken", taesd=True)
    for file in (broken / "unet").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(TrainingError) as error:
        load(broken)
    assert "cannot be loaded" in one_sentence(error)
