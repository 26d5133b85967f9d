"""SD2.x and SDXL: the difference of two models extracted, in full and in low rank, and applied again."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module", params=["SD2.x", "SDXL"])
def family(request, comfyui):
    """(name, MODEL, delta file) of a small UNet with that family's real layout."""
    import comfy.sd
    from trial import small_models

    preset = {"SD2.x": small_models.SD21_SMALL, "SDXL": small_models.SDXL_SMALL}[request.param]
    unet = small_models.make_unet(comfyui.base / f"{request.param}.safetensors", preset)
    delta = small_models.make_delta(comfyui.base / "models" / "perflow" / f"{request.param}-delta.safetensors", unet)
    model = comfy.sd.load_diffusion_model(str(unet), model_options={"dtype": torch.float32})
    return request.param, model, delta


@pytest.fixture
def extract(run):
    def call(perflow, base, rank):
        (path,) = run(
            "PeRFlowExtractDelta",
            model_perflow=perflow,
            model_base=base,
            filename_prefix="family",
            rank=rank,
            energy=0.0,
            prediction_type="auto",
            windows=4,
        )
        return Path(path)

    return call


def test_extracted_and_applied_again(family, apply_delta, extract, weights, core):
    inspect = core("weights.weights_file").inspect
    name, model, delta = family
    merged = apply_delta(model, delta_name=delta.name)
    expected = weights.loaded(merged)
    full = extract(merged, model, rank=0)
    assert inspect(full).family == inspect(full).metadata["architecture"] == name
    weights.assert_same(weights.loaded(apply_delta(model, delta_name=full.name)), expected)
    thin = extract(merged, model, rank=4)
    assert inspect(thin).kind == "low-rank difference"
    found = weights.loaded(apply_delta(model, delta_name=thin.name))
    kept = float(inspect(thin).metadata["energy_kept"])
    assert 1 - energy(found, expected) / energy(weights.loaded(model), expected) == pytest.approx(kept, abs=1e-3)


def energy(one, other):
    """Of the difference of two models' weights."""
    return sum(float(torch.linalg.vector_norm(one[key] - other[key], dtype=torch.float64)) ** 2 for key in one)
