"""`student.delta`: which files a student begins with, what it gets of them, and what is written and refused then."""

import re
import shutil

import pytest
import safetensors.torch
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from training_results import assert_same, read

from perflow_core.weights.lora_file import lora_name, lora_pair, whole_name
from perflow_core.weights.pcm_loras import LAYERS
from perflow_core.weights.unet_names import authors_names
from training import layouts, starting_delta
from training.config import TeacherConfig, parse
from training.stopping import TrainingError

ALL = 64  # a rank that leaves nothing out: no layer of the small UNet has more
LORA = {"method": "lora", "rank": ALL, "ema_decay": 0.9}


@pytest.fixture
def teacher(load_teacher, teacher_folder):
    return load_teacher(TeacherConfig(path=str(teacher_folder)), 64)


@pytest.fixture
def weights(teacher):
    return teacher.unet.state_dict()


@pytest.fixture
def dW(weights):
    """Of every weight, by diffusers' names; matrices and convolutions of rank 2."""
    random = torch.Generator().manual_seed(5)

    def of(weight):
        up, down = (torch.randn(size, generator=random) for size in ((len(weight), 2), (2, weight[0].numel())))
        return 0.02 * (up @ down if weight.ndim > 1 else up[:, 0]).reshape(weight.shape)

    return {key: of(weight) for key, weight in weights.items()}


@pytest.fixture
def written(tmp_path):
    def write(tensors, name="mine.safetensors", **metadata):
        safetensors.torch.save_file({key: t.contiguous() for key, t in tensors.items()}, tmp_path / name, metadata)
        return tmp_path / name

    return write


@pytest.fixture
def differences(configuration, teacher):
    """What is read of a file, by diffusers' names."""

    def of(path):
        start = starting_delta.read(parse(configuration(student={"delta": str(path)})), teacher)
        return dict(start.differences(torch.device("cpu")))

    return of


def low_rank(dW, name, up=".lora_up.weight", down=".lora_down.weight", scale=1.0):
    """Pairs of those of rank 2, the others whole; name: a layer's in the file; scale: what alpha / r makes up for."""
    tensors = {}
    for key, difference in dW.items():
        layer, _, kind = key.rpartition(".")
        if difference.ndim == 1:
            tensors[whole_name(f"{name(layer)}.{kind}")] = difference
            continue
        U, S, V = torch.linalg.svd(difference.flatten(1), full_matrices=False)
        first = (V[:2] if difference.ndim == 2 else V[:2].reshape(2, *difference.shape[1:])) / scale
        pair = lora_pair("", U[:, :2] * S[:2], first)
        if scale != 1:
            tensors[f"{name(layer)}.alpha"] = torch.tensor(2 * scale)
        tensors |= {name(layer) + up: pair[".lora_up.weight"], name(layer) + down: pair[".lora_down.weight"]}
    return tensors


@pytest.mark.parametrize("family", [*layouts.UNETS, "small"])
def test_names_of_the_authors(family, teacher):
    """diffusers' own conversion of checkpoints takes them back to its names."""
    unet = teacher.unet if family == "small" else layouts._unet(layouts.UNETS[family])
    names = authors_names(unet.state_dict().keys())
    assert len(set(names.values())) == len(names) > 300 * (family != "small")
    checkpoint = {f"model.diffusion_model.{authors}": key for key, authors in names.items()}
    assert convert_ldm_unet_checkpoint(checkpoint, unet.config) == {key: key for key in names}


def test_every_kind_of_file(dW, weights, written, differences):
    """Whole and low-rank, by diffusers' names, ComfyUI's and those of LoRA files: the same differences."""
    names = authors_names(weights)
    layers = {key.removesuffix(".weight"): names[key].removesuffix(".weight") for key in names if "weight" in key}

    def processor(layer):
        return f"unet.{layer.replace('.to_', '.processor.to_').replace('to_out.0', 'to_out')}"

    files = {
        "plain": dW,
        "ComfyUI": {f"diffusion_model.{names[key]}": difference for key, difference in dW.items()},
        "checkpoint": {f"model.diffusion_model.{names[key]}": difference for key, difference in dW.items()},
        "program": low_rank(dW, lora_name, scale=4.0),
        "node": low_rank(dW, lambda layer: f"diffusion_model.{layers[layer]}"),
        "kohya": low_rank(dW, lambda layer: lora_name(layers[layer]), scale=0.5),
        "peft": low_rank(dW, lambda layer: f"unet.{layer}", ".lora_B.weight", ".lora_A.weight"),
        "older": low_rank(dW, processor, "_lora.up.weight", "_lora.down.weight"),
    }
    for name, tensors in files.items():
        found = differences(written(tensors, f"{name}.safetensors", prediction_type="ddim_eps"))
        assert found.keys() == dW.keys(), name
        assert max(float((found[key] - dW[key]).abs().max()) for key in dW) < 1e-5, name


def test_a_whole_student_begins_with_a_low_rank_file(run, dW, written, capfd):
    path = written(low_rank(dW, lora_name), prediction_type="ddim_eps", guidance="2.5")
    trained = run(student={"delta": str(path)}, optimizer={"steps": 1, "learning_rate": 1e-12})
    assert all(
        (weight.cpu() - trained.base[key] - dW[key]).abs().max() < 1e-5
        for key, weight in trained.unet.state_dict().items()
    )
    said = capfd.readouterr().err
    assert "The student begins with mine.safetensors. It had learned CFG 2.5, and this training teaches none." in said
    assert read(trained.train())[1]["started_from"] == "mine.safetensors"


def outputs(trained):
    """Of the teacher and of the student."""
    prompts = trained.prompts.embed(["a house", "a boat"])
    z, T = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1000, 437])
    teacher = trained.teacher
    with torch.no_grad(), teacher.without_adapter():
        (one,) = teacher.network(teacher.unet, prompts, None, torch.float32)(z, T)
    with torch.no_grad():
        (other,) = teacher.network(trained.unet, prompts, None, torch.float32)(z, T)
    return one, other, lambda unet: teacher.network(unet, prompts, None, torch.float32)(z, T)[0]


def test_a_lora_is_the_teacher_with_the_delta(run, teacher, dW, written, differences, capfd):
    """Norms, biases and outer layers too; the teacher beside it is as before, and the file has all of it."""
    path = written(dW, prediction_type="ddim_eps")
    trained = run(student=LORA | {"delta": str(path)}, optimizer={"steps": 2, "learning_rate": 1e-9})
    assert "The student begins with mine.safetensors; this rank keeps 100 % of its energy." in capfd.readouterr().err
    found, student, of = outputs(trained)
    with torch.no_grad():
        plain = of(teacher.unet)
        teacher.unet.load_state_dict({key: w + dW[key] for key, w in teacher.unet.state_dict().items()})
        expected = of(teacher.unet)
    assert (found - plain).abs().max() < 1e-5
    assert (student - expected).abs().max() < 1e-4 * (expected - plain).abs().max()
    delta, metadata = read(trained.train())
    assert torch.equal(outputs(trained)[0], found)
    assert metadata["started_from"] == "mine.safetensors"
    assert {"lora_unet_conv_in.diff", "lora_unet_conv_norm_out.diff_b"} < delta.keys()
    again = differences(trained.delta)
    assert again.keys() == dW.keys()
    assert max(float((again[key] - dW[key]).abs().max()) for key in dW) < 1e-5


def test_the_first_directions(run, weights, written, capfd):
    """Of each adapter, with how much of the energy that is; of directions that a file does not have, fresh ones."""
    random = torch.Generator().manual_seed(2)
    dW = {key: 0.01 * torch.randn(weight.shape, generator=random) for key, weight in weights.items()}
    trained = run(student=LORA | {"rank": 3, "delta": str(written(dW, prediction_type="ddim_eps"))})
    energy = kept = 0.0
    for key, difference in dW.items():
        layer, _, kind = key.rpartition(".")
        module, energy = trained.unet.get_submodule(layer), energy + (own := float(difference.square().sum()))
        if kind == "weight" and hasattr(module, "lora_A"):
            up, down = (half["default"].weight.detach() for half in (module.lora_B, module.lora_A))
            own -= float((difference.flatten(1) - up.flatten(1) @ down.flatten(1)).square().sum())
        kept += own
    said = float(re.search(r"keeps ([\d.]+) %", capfd.readouterr().err)[1])
    assert said == pytest.approx(100 * kept / energy, rel=0.01)
    assert 1 < said < 90

    few = written(low_rank({key: d for key, d in dW.items() if "to_q" in key}, lora_name), prediction_type="ddim_eps")
    trained = run(student=LORA | {"rank": 4, "delta": str(few)})
    assert not trained.beside
    for name, module in trained.unet.named_modules():
        if hasattr(module, "lora_A"):
            up, down = (half["default"].weight for half in (module.lora_B, module.lora_A))
            assert not up[:, 2:].any(), name
            assert down[2:].flatten(1).norm(dim=1).min() > 0, name
            assert bool(up[:, :2].any()) == name.endswith("to_q"), name


def test_auto_takes_the_prediction_type_of_the_delta(run, dW, written):
    """That of a file that does not say it is the published weights' of its family."""
    for metadata, expected in (
        ({"prediction_type": "velocity", "base_prediction": "noise"}, "velocity"),
        ({}, "diff_eps"),
    ):
        assert run(student={"delta": str(written(dW, **metadata))}).reflow.prediction_type == expected


@pytest.mark.parametrize("student", [LORA | {"rank": 4}, {"delta_rank": 3}])
def test_a_resumed_run_is_an_uninterrupted_one(run, dW, written, tmp_path, student):
    student = student | {"delta": str(written(dW, prediction_type="ddim_eps"))}
    straight = run(output=str(tmp_path / "straight"), student=student, optimizer={"steps": 5})
    whole = read(straight.train())
    run(student=student, optimizer={"steps": 2}).train()
    moved = shutil.copy(student["delta"], tmp_path / "moved.safetensors")
    last = run(student=student | {"delta": str(moved)}, optimizer={"steps": 5})
    assert last.step == 2
    found = read(last.train())
    assert straight.losses[2:] == last.losses
    assert_same(straight, last)
    assert all(torch.equal(found[0][key], tensor) for key, tensor in whole[0].items())


@pytest.mark.parametrize("student", [LORA | {"rank": 4}, {"ema_decay": 0.9}])
def test_another_delta_at_a_second_start(run, dW, written, student):
    """Before a state the student begins with the new one, and no cache is made again; after one it is refused."""
    first, other = (written({k: sign * d for k, d in dW.items()}, f"{sign}.safetensors") for sign in (1, -1))
    begun = run(student=student | {"delta": str(first)})
    next(begun.segments.batches(0))
    made = {path: path.stat().st_mtime_ns for path in begun.segments.folder.rglob("*.safetensors")}
    again = run(student=student | {"delta": str(other)}, optimizer={"steps": 1})
    assert not torch.equal(outputs(begun)[1], outputs(again)[1])
    again.train()
    assert made
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    for delta in (str(first), ""):
        with pytest.raises(TrainingError, match=r"made with the delta to begin with = '.+', and it is '.*' now"):
            run(student=student | {"delta": delta})
    shutil.copy(first, other)
    with pytest.raises(TrainingError, match="made with the delta to begin with"):
        run(student=student | {"delta": str(other)})


def test_shared_weights_in_parts_are_refused(run, teacher, dW, written):
    """FSDP has no place for what teacher and student have differently beside the adapters."""
    trained = run(student=LORA | {"delta": str(written(dW, prediction_type="ddim_eps"))})
    trained.sharded, start = True, starting_delta.read(trained.config, teacher)
    with pytest.raises(TrainingError, match=r"mine\.safetensors has \d+ tensors \(.+\), which no adapter is for"):
        trained._begin_lora(trained.teacher.unet, start, fresh=True)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"windows": "2"}, r"trained with windows 2, and \[student\] says 4, .+or leave student\.delta out"),
        ({"prediction_type": "diff_eps"}, r"prediction_type diff_eps, and \[student\] says ddim_eps"),
        ({"prediction_type": "none"}, r'says prediction_type "none", expected one of .+leave student\.delta out'),
        ({"base_prediction": "v"}, r"made for models that predict v, and this one predicts noise"),
        ({"base_prediction": "flow"}, r"was trained on a flow model, and this is no flow model"),
    ],
)  # fmt: skip
def test_a_delta_of_another_kind(run, dW, written, metadata, problem):
    path = written(dW, **{"prediction_type": "ddim_eps"} | metadata)
    with pytest.raises(TrainingError, match=f"student.delta: mine.safetensors .*{problem}"):
        run(student={"delta": str(path), "prediction_type": "ddim_eps"})


def test_files_that_are_no_delta_for_the_model(run, dW, weights, written, tmp_path):
    def refused(path, **student):
        with pytest.raises(TrainingError) as error:
            run(student={"delta": str(path), **student})
        text = str(error.value)
        assert text.startswith("student.delta: ")
        assert text.endswith(".")
        assert "\n" not in text
        return text

    key = "conv_out.bias"
    assert "holds NaN or Inf" in refused(written(dW | {key: dW[key] / 0}))
    assert "is a full SD1.5 model" in refused(written(weights))
    assert "lacks 1 tensor (conv_out.bias)" in refused(written({k: d for k, d in dW.items() if k != key}))
    assert "has 1 tensor (other)" in refused(written(dW | {"other": torch.zeros(4)}))
    assert "has shape 5, expected 4" in refused(written(dW | {key: torch.zeros(5)}))
    alike = {key: dW[key] for key in dW if key.endswith(".weight") and LAYERS.search(lora_name(key[:-7]))}
    assert "for the layers that PCM and LCM LoRAs change" in refused(written(low_rank(alike, lora_name)))
    pair = low_rank({k: d for k, d in dW.items() if "to_q" in k}, lora_name)
    up = next(name for name in pair if "lora_up" in name)
    assert "half of a pair" in refused(written({name: t for name, t in pair.items() if name != up}))
    assert "expected one rank in both" in refused(written(pair | {up: pair[up][:, :1]}))
    loha = {up.replace("lora_up.weight", f"hada_w1_{half}"): torch.ones(4, 2) for half in "ab"}
    assert "of an unknown kind" in refused(written(loha))
    assert "cannot be read" in refused(tmp_path / "none.safetensors")
    (tmp_path / "page.safetensors").write_bytes(b"<!doctype html>" + b" " * 100)
    assert "it is a web page" in refused(tmp_path / "page.safetensors")
    wider = {key: torch.zeros(len(d), 2048) for key, d in dW.items() if "attn2.to_k" in key}
    assert "is made for SDXL" in refused(written(dW | wider))
