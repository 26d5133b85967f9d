"""A model's weights as they are while it samples."""

import comfy.model_management
import comfy.utils
import torch
from safetensors.torch import load_file


def loaded(model) -> dict[str, torch.Tensor]:
    """The UNet's weights as they are while sampling; the model is left unpatched."""
    comfy.model_management.load_models_gpu([model])
    weights = {key: tensor.clone() for key, tensor in model.model_state_dict("diffusion_model.").items()}
    model.detach()
    return weights


def delta_of(model, file) -> dict[str, torch.Tensor]:
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {"diffusion_model." + names[key]: tensor.float() for key, tensor in load_file(str(file)).items()}


def assert_sum(found, base, delta, strength=1.0):
    assert found.keys() == base.keys() == delta.keys()
    for key, weight in base.items():
        assert near(found[key], weight + strength * delta[key], rtol=1e-6, atol=1e-7), key


def assert_same(found, expected, rtol=1e-6, atol=1e-6):
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert near(found[key], weight, rtol, atol), key


def near(a, b, rtol, atol) -> bool:
    """|a - b| <= atol + rtol |b| everywhere, as torch.allclose has it, in a third of the time."""
    assert a.shape == b.shape
    return bool(((a - b).abs_() <= b.abs().mul_(rtol).add_(atol)).all())
