"""The stored small model, trained on: restore, export, then the program with the shipped configuration."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from training_results import read

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(comfyui_path, tmp_path_factory) -> Path:
    from small_model.trainers.export import export
    from small_model.trainers.restore import restore

    folder = tmp_path_factory.mktemp("small")
    restore(folder)
    export(folder, comfyui_path / "comfy" / "sd1_tokenizer", 6)
    return folder


def test_the_latents_are_of_drawings_that_nobody_had_made_before(folder):
    from small_model.trainers.dataset import pictures_of, trained_autoencoder
    from small_model.trainers.devices import as_tensor

    latents = safetensors.torch.load_file(folder / "latents.safetensors")["latents"]
    pictures, captions = pictures_of(folder, 6)
    assert latents.shape == (6, 4, 16, 16)
    assert json.loads((folder / "latents.json").read_text(encoding="utf-8")) == captions
    _, decoder = trained_autoencoder(folder)
    with torch.no_grad():
        off = decoder(latents.float()).clamp(0, 1) - as_tensor(pictures)
    assert off.square().mean().sqrt() < 0.06  # 31.9 dB on the average are 0.025


def test_the_shipped_configuration_trains_on_from_the_stored_weights(folder):
    from accelerate.state import AcceleratorState

    from training.config import parse, tomllib
    from training.run import Run

    AcceleratorState._reset_state(True)
    text = (REPOSITORY / "training" / "configs" / "small.toml").read_text(encoding="utf-8")
    values = tomllib.loads(text.replace("runs/small", folder.as_posix()))
    values["student"]["delta_rank"] = 0  # finding the directions takes long
    values["cache"] |= {"endpoints": 4, "teacher_batch": 4}
    values["optimizer"] |= {"steps": 1, "batch_size": 2}
    trained = Run(parse(values))
    delta, metadata = read(trained.train())
    stored = safetensors.torch.load_file(folder / "delta.safetensors")
    assert delta.keys() == stored.keys()
    size = sum(float(dW.square().sum()) for dW in stored.values())
    moved = sum(float((delta[key].float() - dW).square().sum()) for key, dW in stored.items())
    assert 0 < moved < 0.02 * size
    assert (metadata["prediction_type"], metadata["windows"]) == ("ddim_eps", "4")
