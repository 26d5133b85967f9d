"""Flow-matching models: what diffusers makes of them, and what ComfyUI makes of a delta that was trained on them."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from training_results import read
from trial.small_flow_teachers import MAKERS, make_flow_teacher

from training import teacher as teachers
from training.config import TeacherConfig

TEXTS = ["a house at sea", "a boat at sea!"]  # of one length
ARCHITECTURES = {"sd3.5": "SD3", "flux": "Flux", "z-image": "Lumina2", "qwen-image": "QwenImage", "wan2.1": "WAN21"}
DATA = {"sd3.5": "folder", "flux": "latents", "z-image": "prompts", "qwen-image": "folder", "wan2.1": "prompts"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(name) -> the folder of that small model."""
    base = tmp_path_factory.mktemp("flow-teachers")
    return lambda name: base / name if (base / name).is_dir() else make_flow_teacher(base / name, name)


@pytest.fixture(params=MAKERS)
def name(request):
    return request.param


def noise_of(teacher, seed: int = 3) -> torch.Tensor:
    return torch.randn(2, *teacher.latent_shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_a_picture_of_the_pipeline(name, folder):
    """Text encoders, transformer, shift and guidance are the pipeline's: its Euler steps from the same noise."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    teacher = teachers.load(TeacherConfig(path=str(folder(name))), 64)
    noise, pipeline, steps = noise_of(teacher), teacher.pipeline, 3
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
    width = dict(dim=1152, n_heads=9, n_kv_heads=9) if name == "z-image" else {}
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


def test_from_data_to_comfyui(name, folder, run, comfyui, tmp_path):
    """Two steps; then Apply PeRFlow Delta and the stock LoRA loader make of the teacher what was trained."""
    import comfy.sd

    teacher = teachers.load(TeacherConfig(path=str(folder(name))), 64)
    (tmp_path / "data").mkdir()
    trained = run(
        teacher={"path": str(folder(name)), "solving_steps": 1},
        student={"method": "lora", "rank": 2, "ema_decay": 0.0},
        data=data_of(DATA[name], teacher, tmp_path / "data"),
        cache={"endpoints": 4, "uses": 1, "teacher_batch": 2, "prompts_gb": 0.1},
        optimizer={"steps": 2, "batch_size": 2, "learning_rate": 0.05, "warm_up": 0},
        preview={"every": 2, "prompts": TEXTS[:1], "student_steps": [4], "teacher_steps": 1, "reference_steps": 1},
    )
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
