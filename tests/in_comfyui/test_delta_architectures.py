"""Deltas on SD2.x and SDXL models from the stock loader."""

import pytest
import torch

PRESETS = {"SD2.x": "SD21_SMALL", "SDXL": "SDXL_SMALL"}
PREDICTION = {"SD2.x": "velocity", "SDXL": "ddim_eps"}


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


@pytest.fixture(scope="module", params=PRESETS)
def base(request, comfyui):
    """(architecture, the UNet's file, the MODEL, its weights)"""
    import comfy.sd
    from trial import small_models
    from weights import loaded

    folder = comfyui.base / "models" / "diffusion_models"
    file = small_models.make_unet(
        folder / f"{request.param}.safetensors", getattr(small_models, PRESETS[request.param])
    )
    model = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.float32})
    before = loaded(model)
    yield request.param, file, model, before
    after = loaded(model)
    assert all(torch.equal(after[key], weight) for key, weight in before.items())


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_weights_are_base_plus_strength_times_delta(comfyui, base, apply_delta, weights, layout):
    from safetensors.torch import load_file
    from trial import small_models

    architecture, unet, model, before = base
    folder = comfyui.base / "models" / "perflow"
    file = small_models.make_delta(folder / f"{architecture}-{layout}.safetensors", unet, layout=layout)
    accelerated = apply_delta(model, delta_name=file.name, strength=0.7)
    ours = {key: tensor.float() for key, tensor in load_file(str(file)).items()}
    delta = weights.delta_of(model, file) if layout == "diffusers" else ours
    weights.assert_sum(weights.loaded(accelerated), before, delta, 0.7)
    assert accelerated.get_model_object("model_sampling").prediction_type == PREDICTION[architecture]


def test_the_other_architectures_delta_is_refused(comfyui, base, apply_delta, delta_file):
    architecture, _, model, _ = base
    with pytest.raises(
        ValueError, match=rf"is made for SD1\.5, expected a PeRFlow delta for this {architecture} model"
    ):
        apply_delta(model, delta_name=delta_file.name)
