"""Flow-matching models: what diffusers makes of them, and what ComfyUI makes of a delta that was trained on them."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from training_results import read
from trial.small_flow_teachers import MAKERS, make_flow_teacher

from perflow_core.sampling.chord import shifted
from perflow_core.weights.lora_file import whole_name
from training import teacher as teachers
from training.config import TeacherConfig, parse
from training.config import read as read_configuration
from training.plan import plan
from training.stopping import TrainingError

TEXTS = ["a house at sea", "a boat at sea!"]  # of one length
ARCHITECTURES = {"sd3.5": "SD3", "flux": "Flux", "z-image": "Lumina2", "qwen-image": "QwenImage", "wan2.1": "WAN21"}
DATA = {"sd3.5": "folder", "flux": "latents", "z-image": "prompts", "qwen-image": "folder", "wan2.1": "prompts"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(name) -> the folder of that small model."""
    base = tmp_path_factory.mktemp("flow-teachers")
    return lambda name: base / name if (base / name).is_dir() else make_flow_teacher(base / name, name)


@pytest.fixture
def loaded(folder, load_teacher):
    """(name) -> that model as a teacher."""
    return lambda name: load_teacher(TeacherConfig(path=str(folder(name))), 64)


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


def noise_of(teacher, seed: int = 3) -> torch.Tensor:
    return torch.randn(2, *teacher.latent_shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_a_picture_of_the_pipeline(name, loaded):
    """Text encoders, transformer, shift and guidance are the pipeline's: its Euler steps from the same noise."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    teacher = loaded(name)
    noise, pipeline, steps = noise_of(teacher), teacher.pipeline, 2
    guidance, options = 2.0, {"guidance_scale": 2.0, "sigmas": np.linspace(1, 1 / steps, steps)}
    if name == "flux":
        guidance, options["guidance_scale"] = 1.0, 3.5  # what its transformer is given
    if name == "qwen-image":
        guidance, options["guidance_scale"] = 1.0, None  # its pipeline scales a guided velocity once more
    if name == "z-image":
        options["guidance_scale"] = guidance - 1  # of m + g (m - m_without)
    if name == "wan2.1":  # by its own scheduler it is of a higher order
        del options["sigmas"]
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
        pipeline.scheduler.sigma_min = 1 / steps
    trajectory = teacher.base.trajectory(teacher.base.chord(1), steps, "ddim").to("cpu", torch.float32)
    prompts, empty = teacher.encode_prompts(TEXTS), teacher.encode_prompts([""])
    found = trajectory.sample(teacher.derivative(trajectory, prompts, empty, guidance), noise)

    pipeline.set_progress_bar_config(disable=True)
    packed = {"flux", "qwen-image"}
    given = pipeline._pack_latents(noise, *noise.shape) if name in packed else noise
    latents = pipeline(
        TEXTS, height=64, width=64, num_inference_steps=steps, latents=given, output_type="latent", **options
    )[0]
    if name in packed:
        latents = pipeline._unpack_latents(latents, 64, 64, 8).reshape(noise.shape)
    assert relative(found, latents) < 1e-5


def data_of(kind: str, teacher, where) -> dict:
    """Little data of a kind, written below a folder."""
    if kind == "prompts":
        (where / "prompts.txt").write_text("\n".join(TEXTS))
        return {"kind": kind, "path": str(where / "prompts.txt"), "sampling_steps": 2, "sampling_guidance": 1.0}
    if kind == "latents":
        path = where / "latents.safetensors"
        safetensors.torch.save_file({"latents": noise_of(teacher)}, path)
        path.with_suffix(".json").write_text(json.dumps(TEXTS))
        return {"kind": kind, "path": str(path)}
    for number, text in enumerate(TEXTS):
        Image.new("RGB", (64, 64), (200, 90 * number, 40)).save(where / f"{number}.png")
        (where / f"{number}.txt").write_text(text)
    return {"kind": kind, "path": str(where)}


def comfyui_model(comfyui, name: str, state: dict, file):
    """The stock loader's MODEL of a file with these weights."""
    from unittest import mock

    import flow_models
    from trial.small_models.flows import FLOWS

    safetensors.torch.save_file({key.removeprefix("diffusion_model."): tensor for key, tensor in state.items()}, file)
    width = dict(dim=1152, n_heads=9, n_kv_heads=9, n_refiner_layers=0) if name == "z-image" else {}
    layout = FLOWS[name]._replace(config=FLOWS[name].config | width)
    with mock.patch.dict(FLOWS, {name: layout}):
        return flow_models.load(name, file)


@torch.no_grad()
def velocity(name: str, model, x, sigma, prompts) -> torch.Tensor:
    """A MODEL's v, which ComfyUI has as (x - denoised) / sigma."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    embeddings = prompts.embeddings[:, : int(prompts.embeddings[0].any(dim=-1).sum())]
    conditions = {"c_crossattn": embeddings}
    if prompts.pooled.shape[1]:
        conditions["y"] = prompts.pooled
    if name == "flux":
        conditions["guidance"] = torch.tensor([3.5])
    if name == "z-image":
        conditions |= {"num_tokens": embeddings.shape[1], "attention_mask": torch.ones(embeddings.shape[:2])}
    if name == "wan2.1":  # which is shown the zeros too
        conditions["c_crossattn"] = prompts.embeddings
    shown = x[:, :, None] if name == "qwen-image" else x
    x0 = model.model.apply_model(shown, sigma, **conditions).reshape(x.shape)
    return (x - x0) / sigma.reshape(-1, *[1] * (x.ndim - 1))


def test_from_data_to_comfyui(name, folder, loaded, run, comfyui, repository, tmp_path):
    """Two steps of the shipped configuration; then Apply PeRFlow Delta and Load LoRA make what was trained."""
    import comfy.sd

    teacher = loaded(name)
    (tmp_path / "data").mkdir()
    shipped = read_configuration(
        repository / "training" / "configs" / f"{re.sub('[.]', '', name).replace('-', '_')}.toml"
    )
    smaller = {
        "teacher": {"path": str(folder(name)), "solving_steps": 1, "shift": "auto"},
        "student": {"rank": 2, "ema_decay": 0.0},
        "data": data_of(DATA[name], teacher, tmp_path / "data") | {"resolution": 64},
        "cache": {"endpoints": 4, "uses": 1, "teacher_batch": 2, "prompts_gb": 0.1},
        "optimizer": {"steps": 2, "batch_size": 2, "accumulation": 1, "learning_rate": 0.05, "warm_up": 0},
        "preview": {"every": 2, "prompts": TEXTS[:1], "student_steps": [4], "teacher_steps": 1, "reference_steps": 1},
        "save": {"precision": "float32"},
    }
    smaller["optimizer"]["precision"] = "no"  # so that ComfyUI, in float32, gives the same numbers
    trained = run(**{section: shipped.model_dump()[section] | changes for section, changes in smaller.items()})
    path = trained.train()
    assert (tmp_path / "run" / "previews" / "step-00000002.png").is_file()
    tensors, metadata = read(path)
    assert all(key.startswith("diffusion_model.") for key in tensors)
    assert (metadata["architecture"], metadata["base_prediction"]) == (ARCHITECTURES[name], "flow")
    assert metadata["prediction_type"] == "velocity"
    edges, shift = [float(sigma) for sigma in metadata["edges"].split(",")], float(metadata["shift"])
    assert edges == pytest.approx([shift * u / (1 + (shift - 1) * u) for u in (1, 0.75, 0.5, 0.25, 0)], abs=1e-5)
    assert metadata.get("embedded_guidance") == ("3.5" if name == "flux" else None)

    x, T, sigma = (
        noise_of(teacher),
        torch.tensor([1000.0, 300.0]),
        torch.tensor([1.0, shift * 0.3 / (0.7 + shift * 0.3)]),
    )
    prompts = trained.teacher.encode_prompts(TEXTS)
    torch.testing.assert_close(trained.prompts.embed(TEXTS), prompts)  # with what fills them up
    with torch.no_grad():
        before = teacher.conditioned(teacher.unet, prompts)(x, T)
        after = trained.teacher.conditioned(trained.unet.eval(), prompts)(x, T)
    assert relative(after, before) > 0.05
    state = trained.teacher.names.whole(teacher.unet.state_dict())
    model = comfyui_model(comfyui, name, state, tmp_path / "model.safetensors")
    assert relative(velocity(name, model, x, sigma, prompts), before) < 1e-4
    base = comfyui.module("nodes.comfyui.sampling.base_sampling").base_of(model)
    applied, lines = comfyui.module("nodes.comfyui.applied_delta").with_delta(model, base, str(path))
    assert relative(velocity(name, applied, x, sigma, prompts), after) < 1e-4
    assert any(line.startswith("flow, 4 windows: sigma 1 ") for line in lines)
    stock, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert relative(velocity(name, stock, x, sigma, prompts), after) < 1e-4


def test_a_whole_student(folder, loaded, run, comfyui, tmp_path):
    """Every weight of it, also those that are no layer's; with what else a run may have."""
    name = "sd3.5"
    teacher = loaded(name)
    trained = run(
        teacher={"path": str(folder(name)), "solving_steps": 1, "guidance": 2.0},
        student={"ema_decay": 0.0, "gradient_checkpointing": True},
        data=data_of("latents", teacher, tmp_path),
        cache={"endpoints": 4, "uses": 1, "teacher_batch": 2, "prompts_gb": 0.1},
        optimizer={"steps": 2, "batch_size": 1, "accumulation": 2, "learning_rate": 1e-3, "precision": "bf16"},
    )
    path = trained.train()
    student = trained.accelerator.unwrap_model(trained.unet, keep_fp32_wrapper=False)
    state = trained.teacher.names.whole(teacher.unet.state_dict())
    model = comfyui_model(comfyui, name, state, tmp_path / "model.safetensors")
    base = comfyui.module("nodes.comfyui.sampling.base_sampling").base_of(model)
    applied, _ = comfyui.module("nodes.comfyui.applied_delta").with_delta(model, base, str(path))
    prompts, x, T = teacher.encode_prompts(TEXTS), noise_of(teacher), torch.tensor([1000.0, 250.0])
    with torch.no_grad():
        before, after = (teacher.conditioned(unet, prompts)(x, T) for unet in (teacher.unet, student))
    assert relative(after, before) > 0.01
    assert relative(velocity(name, applied, x, torch.tensor([1.0, 0.5]), prompts), after) < 1e-4


@pytest.mark.parametrize("name", ["sd3.5", "flux"])
def test_a_lora_that_begins_with_a_delta(name, folder, loaded, run, comfyui, tmp_path):
    """A difference of every weight, by ComfyUI's names; student and file have all of it, and the teacher nothing."""
    teacher = loaded(name)
    weights, names = teacher.unet.state_dict(), teacher.names
    trainable = {key for key, _ in teacher.unet.named_parameters()}  # not the table of positions
    dW = {key: 0.02 * (key in trainable) * torch.randn(weight.shape) for key, weight in weights.items()}
    path = tmp_path / "whole.safetensors"
    edges = ",".join(f"{sigma:.9g}" for sigma in teacher.base.edges(4))
    facts = {"base_prediction": "flow", "architecture": teacher.architecture, "edges": edges, "rank": "full"}
    diffs = {whole_name(key): difference for key, difference in names.whole(dW).items()}
    safetensors.torch.save_file(diffs, path, facts)

    def started(**student):
        return run(
            output=str(tmp_path / f"run-{student}"[:60]),
            teacher={"path": str(folder(name)), "solving_steps": 1},
            student={"method": "lora", "rank": 640, "ema_decay": 0.0, "delta": str(path)} | student,
            data=data_of("latents", teacher, tmp_path),
            cache={"endpoints": 4, "uses": 1, "teacher_batch": 2, "prompts_gb": 0.1},
            optimizer={"steps": 1, "batch_size": 2, "learning_rate": 1e-9},
        )

    trained = started()
    prompts, x, T = teacher.encode_prompts(TEXTS), noise_of(teacher), torch.tensor([1000.0, 250.0])
    with torch.no_grad():
        before, student = (trained.teacher.conditioned(unet, prompts)(x, T) for unet in (teacher.unet, trained.unet))
        with trained.teacher.without_adapter():
            again = trained.teacher.conditioned(trained.teacher.unet, prompts)(x, T)
        state = names.whole(weights)
        teacher.unet.load_state_dict({key: weight + dW[key] for key, weight in weights.items()})
        expected = teacher.conditioned(teacher.unet, prompts)(x, T)
    assert relative(again, before) < 1e-6
    assert relative(student, expected) < 1e-4 < relative(expected, before)
    model = comfyui_model(comfyui, name, state, tmp_path / "model.safetensors")
    base = comfyui.module("nodes.comfyui.sampling.base_sampling").base_of(model)
    applied, _ = comfyui.module("nodes.comfyui.applied_delta").with_delta(model, base, str(trained.train()))
    sigma = shifted(T / 1000, teacher.base.shift)
    assert relative(velocity(name, applied, x, sigma, prompts), expected) < 1e-4
    with pytest.raises(
        TrainingError, match=r"trained with windows 4, and|has windows at the sigmas 1 .+ the run has 1 "
    ):
        started(windows=2)


def test_a_single_file_beside_a_folder(folder, loaded, tmp_path):
    """In the layout that ComfyUI's files have, by diffusers' conversion."""
    one = loaded("sd3.5")
    state = one.names.whole(one.unet.state_dict())
    file = tmp_path / "fine-tuned.safetensors"
    of_model = {key.replace("diffusion_model.", "model.diffusion_model."): 1.5 * t for key, t in state.items()}
    safetensors.torch.save_file(of_model, file)
    other = teachers.load(TeacherConfig(path=str(file), config=str(folder("sd3.5"))), 64)
    assert other.name == "fine-tuned.safetensors"
    for key, weight in other.unet.state_dict().items():
        assert torch.equal(weight, 1.5 * one.unet.state_dict()[key]), key


@pytest.fixture
def changed_folder(folder, tmp_path):
    """(name, file, values) -> a copy of the folder, of links, with other values in one JSON file."""

    def change(name: str, file: str, **values):
        copy = tmp_path / f"changed-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder(name), copy, copy_function=os.link)
        found = json.loads((copy / file).read_text())
        (copy / file).unlink()
        (copy / file).write_text(json.dumps(found | values))
        return copy

    return change


def test_the_shift_is_the_schedulers(changed_folder):
    """As it is for the resolution, or fixed, or as the configuration says."""
    scheduler = "scheduler/scheduler_config.json"
    fixed = changed_folder("flux", scheduler, use_dynamic_shifting=False, shift=2.5)
    linear = changed_folder("flux", scheduler, time_shift_type="linear")
    for path, side, shift, expected in (
        (linear, 1024, "auto", 1.15),
        (fixed, 64, "auto", 2.5),
        (fixed, 64, 4.0, 4.0),
    ):
        found = teachers.load(TeacherConfig(path=str(path), shift=shift), side).base
        assert found.shift == pytest.approx(expected)


def test_what_is_refused_is_said(changed_folder, folder, run, configuration, tmp_path):
    """Each in one sentence, before anything is made."""
    safetensors.torch.save_file({"latents": torch.zeros(2, 4, 8, 8)}, tmp_path / "others.safetensors")
    (tmp_path / "others.json").write_text(json.dumps(TEXTS))
    latents = {"kind": "latents", "path": str(tmp_path / "others.safetensors")}
    flux = str(folder("flux"))
    wrong = changed_folder("flux", "model_index.json", _class_name="FluxFillPipeline")
    two = changed_folder("wan2.1", "model_index.json", expand_timesteps=True)
    backwards = changed_folder("flux", "scheduler/scheduler_config.json", invert_sigmas=True)
    for sentence, changes in {
        "is a FluxFillPipeline, expected one of StableDiffusion3Pipeline, FluxPipeline,": {"teacher": {"path": wrong}},
        "is of another kind (it has two transformers, or a time for each token)": {"teacher": {"path": two}},
        "is of another kind (its scheduler goes from data to noise)": {"teacher": {"path": backwards}},
        "data.resolution is 72, expected a multiple of 16": {"teacher": {"path": flux}, "data": {"resolution": 72}},
        "data.resolution is 144, expected at most 128 for sd3.5: lower": {
            "teacher": {"path": folder("sd3.5")}, "data": {"resolution": 144},
        },
        'teacher.prediction_type is "epsilon"': {"teacher": {"path": flux, "prediction_type": "epsilon"}},
        "teacher.clip_skip is -2 for flux, a flow model": {"teacher": {"path": flux, "clip_skip": -2}},
        'student.prediction_type is "ddim_eps" for a flow model': {
            "teacher": {"path": flux}, "student": {"prediction_type": "ddim_eps"},
        },
        "teacher.float8 is true for a flow model": {
            "teacher": {"path": flux, "float8": True}, "optimizer": {"precision": "bf16"},
        },
        "points.pure_noise is true for a flow model": {"teacher": {"path": flux}, "points": {"pure_noise": True}},
        "holds latents of shape (4, 8, 8), expected (16, 8, 8) as": {"teacher": {"path": flux}, "data": latents},
    }.items():  # fmt: skip
        changes["teacher"]["path"] = str(changes["teacher"]["path"])
        with pytest.raises(TrainingError, match=re.escape(sentence)):
            run(output=str(tmp_path / "refused"), **changes)
    half = parse(configuration(teacher={"path": flux}, optimizer={"precision": "fp16"}))
    with pytest.raises(TrainingError, match='precision is "fp16" for a flow model'):
        plan(half, teachers.load(half.teacher, 64))


def test_what_is_cached_is_made_again(folder, loaded, run, capfd, tmp_path):
    """For another shift, another embedded guidance and another length of the text."""
    teacher = loaded("flux")
    data = data_of("latents", teacher, tmp_path)
    usual = {"path": str(folder("flux")), "solving_steps": 1, "text_length": 24}

    def start(**changes):
        trained = run(
            teacher=usual | changes,
            student={"method": "lora", "rank": 2},
            data=data,
            cache={"endpoints": 2, "teacher_batch": 2},
            optimizer={"batch_size": 2},
        )
        (rows,) = trained.segments.batches(0)
        return rows.segment.eps, capfd.readouterr().err

    first, _ = start()
    same, said = start()
    assert torch.equal(same, first)
    assert "made again" not in said
    for key, value in (("shift", 3.0), ("embedded_guidance", 7.0), ("text_length", 16)):
        found, said = start(**{key: value})
        assert relative(found, first) > 1e-3
        assert f"made with teacher.{key} = " in said or (key == "shift" and "the teacher's noise table" in said)
