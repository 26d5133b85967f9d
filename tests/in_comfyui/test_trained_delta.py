"""From a checkpoint to a delta by the training program, and back into ComfyUI by the nodes that read it."""

import json

import pytest
import safetensors.torch
import torch

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def checkpoint(comfyui, comfyui_path, tmp_path_factory):
    """A small SD1.5 checkpoint, and what the program needs to train on it without a network."""
    from checkpoint_config import describe_checkpoint
    from trial import small_models

    folder = tmp_path_factory.mktemp("training")
    path = small_models.make_checkpoint(comfyui.base / "models" / "checkpoints" / "to-train.safetensors")
    safetensors.torch.save_file({"latents": torch.randn(4, 4, 8, 8)}, folder / "latents.safetensors")
    (folder / "latents.json").write_text(json.dumps(["a house", "a boat", "a tree", "a hill"]))
    config = describe_checkpoint(folder / "config", comfyui_path / "comfy" / "sd1_tokenizer")
    return {"path": str(path), "config": str(config), "solving_steps": 1}


@pytest.fixture
def trained(checkpoint, comfyui, tmp_path):
    """Two steps of a configuration; the file, put where ComfyUI looks for deltas and LoRAs."""

    def train(name: str, **sections):
        from pathlib import Path

        from accelerate.state import AcceleratorState

        from training.config import parse
        from training.run import Run

        AcceleratorState._reset_state(True)
        latents = Path(checkpoint["config"]).with_name("latents.safetensors")
        values = {
            "output": str(tmp_path / name),
            "teacher": checkpoint,
            "data": {"kind": "latents", "path": str(latents), "resolution": 64},
            "cache": {"endpoints": 4, "uses": 2, "teacher_batch": 4, "prompts_gb": 0.01},
            "optimizer": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "warm_up": 1},
            "preview": {"every": 0},
            "save": {"precision": "float32", "name": name},
        }
        file = Run(parse(values | sections)).train()
        for folder in ("perflow", "loras"):
            target = comfyui.base / "models" / folder / file.name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
        return target

    return train


@pytest.fixture
def base_model(run, checkpoint):
    return run("CheckpointLoaderSimple", ckpt_name="to-train.safetensors")[0]


def test_a_full_delta_is_applied(trained, base_model, apply_delta, weights):
    file = trained("full")
    base, delta = weights.loaded(base_model), weights.delta_of(base_model, file)
    model = apply_delta(base_model, delta_name=file.name)
    weights.assert_sum(weights.loaded(model), base, delta)
    assert all(dW.abs().max() > 0 for dW in delta.values())
    sampling = model.get_model_object("model_sampling")
    assert (sampling.prediction_type, sampling.chord.K) == ("ddim_eps", 4)


@pytest.mark.parametrize("sections", [{"student": {"method": "lora", "rank": 2}}, {"save": {"rank": 2, "name": "low"}}])
def test_a_low_rank_delta_is_applied_and_loaded_as_a_lora(trained, run, base_model, apply_delta, weights, sections):
    file = trained("low", **sections)
    base = weights.loaded(base_model)
    found = weights.loaded(apply_delta(base_model, delta_name=file.name))
    changed = [key for key, weight in found.items() if not torch.equal(weight, base[key])]
    stored = safetensors.torch.load_file(file)
    assert len(changed) == len([key for key in stored if key.endswith((".lora_up.weight", ".diff", ".diff_b"))])
    (stock,) = run("LoraLoaderModelOnly", model=base_model, lora_name=file.name, strength_model=1.0)
    weights.assert_same(weights.loaded(stock), found)
