"""The shipped configurations on small models of their layouts, and the teachers' predictions."""

import pytest
import torch
from trial.small_teachers import make_teacher

from perflow_core.sampling.parameterization import append_dims
from training import student
from training import teacher as teachers
from training.config import TeacherConfig, parse, read

FAMILIES = {
    "sd15": (768, "epsilon", "diff_eps"),
    "sd21": (1024, "v_prediction", "velocity"),
    "sdxl": (2048, "epsilon", "ddim_eps"),
    "sdxl_lora_12gb": (2048, "epsilon", "ddim_eps"),
}
IN_16_BITS = ("sdxl", "sdxl_lora_12gb")
SMALLER = {
    "student": {"rank": 4},
    "data": {"resolution": 64},
    "cache": {"endpoints": 4, "teacher_batch": 4},
    "optimizer": {"steps": 2, "batch_size": 2},
    "preview": {"every": 2, "reference_steps": 2, "teacher_steps": 2},
    "save": {"precision": "float32"},
}


@pytest.fixture(scope="module")
def family_teacher(tmp_path_factory):
    """A teacher of each configuration's kind."""

    def make(name: str):
        width, predicts, _ = FAMILIES[name]
        return make_teacher(tmp_path_factory.mktemp(name), width, predicts, taesd=name == "sd21")

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_two_steps_of_each_configuration(name, family_teacher, repository, tmp_path, latents_file):
    from accelerate.state import AcceleratorState
    from safetensors import safe_open

    from training.run import Run

    values = read(repository / "training" / "configs" / f"{name}.toml").model_dump()
    values["output"] = str(tmp_path)
    values["teacher"]["path"] = str(family_teacher(name))
    values["data"] |= {"kind": "latents", "path": str(latents_file), "resolution": 64}
    for section, changes in SMALLER.items():
        values[section] |= changes
    values["optimizer"]["accumulation"] = 2 if name == "sdxl" else 1
    values["optimizer"]["precision"] = "bf16" if name in IN_16_BITS else "no"  # fp16 is for GPUs
    AcceleratorState._reset_state(True)
    trained = Run(parse(values))
    assert {weight.dtype for weight in student.trainable(trained.unet)} == {torch.float32}
    path = trained.train()
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        names = set(file.keys())
    assert names == set(trained.base) or all("lora_unet_" in name for name in names)
    assert metadata["prediction_type"] == FAMILIES[name][2]
    assert metadata["architecture"] == {768: "SD1.5", 1024: "SD2.x", 2048: "SDXL"}[FAMILIES[name][0]]
    assert (tmp_path / "previews" / "step-00000002.png").is_file()
    assert len(trained.losses) == 2


def test_noise_prediction_of_the_pipelines(family_teacher):
    """eps of a noise model and of a v model, guided, as diffusers' own maths has it."""
    for name in ("sd15", "sd21"):
        teacher = teachers.load(TeacherConfig(path=str(family_teacher(name))), 64)
        X, i = 3 * torch.randn(2, 4, 8, 8), torch.tensor([700, 30])
        prompts, empty = teacher.encode_prompts(["a house", "a boat"]), teacher.encode_prompts([""])
        trajectory = teacher.base.trajectory(teacher.base.chord(4), 1).to("cpu", torch.float32)
        found = teacher.derivative(trajectory, prompts, empty, 3.0)(X, i)
        alpha_bar = append_dims(teacher.alphas_cumprod[i].float(), X)
        z = alpha_bar.sqrt() * X
        with torch.no_grad():
            outputs = [
                teacher.unet(z, i, encoder_hidden_states=p.embeddings.expand(2, -1, -1)).sample
                for p in (empty, prompts)
            ]
        m = outputs[0] + 3 * (outputs[1] - outputs[0])
        expected = m if name == "sd15" else alpha_bar.sqrt() * m + (1 - alpha_bar).sqrt() * z
        assert (found - expected).abs().max() < 1e-4
