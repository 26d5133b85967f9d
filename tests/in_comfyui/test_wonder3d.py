"""Wonder3D through the loader node: the authors' numbers, rows that stay together, and the PeRFlow delta on it."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def reference(golden):
    return golden("wonder3d_tiny")


@pytest.fixture(scope="module")
def folder(comfyui):
    return comfyui.base / "models" / "diffusion_models"


@pytest.fixture(scope="module")
def weights_by_formula(reference):
    from wonder3d_models import formula_weights

    return formula_weights(reference["keys"])


@pytest.fixture(scope="module")
def tiny(run, folder, weights_by_formula):
    """The reference's tiny Wonder3D as a MODEL."""
    from wonder3d_models import write

    file = write(weights_by_formula, folder / "wonder3d-tiny.safetensors")
    return run("Wonder3DLoader", unet_name=file.name)[0]


def predicted(model, reference, together: int = 1, **options) -> torch.Tensor:
    """The UNet's output for the reference's case, as many times in one batch as asked for."""
    from wonder3d_models import inputs

    x, context, _ = inputs(reference["cases"][0])
    y = torch.tensor(reference["class_embed_input"])
    case = [part.repeat(together, *[1] * (part.ndim - 1)) for part in (x, context, y)]
    t = torch.full((12 * together,), float(reference["cases"][0]["t"]))
    unet = model.model.diffusion_model
    return unet(case[0], t, context=case[1], y=case[2], transformer_options=options)


def test_the_unet_is_the_references(tiny, reference):
    from wonder3d_models import inputs

    expected = inputs(reference["cases"][0])[2]
    assert (predicted(tiny, reference) - expected).abs().max() < 1e-5
    assert (predicted(tiny, reference, together=2) - expected.repeat(2, 1, 1, 1)).abs().max() < 1e-5
