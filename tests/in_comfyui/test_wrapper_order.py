"""Where another pack's OUTER_SAMPLE wrapper stands decides which list of sigmas it sees."""

import pytest
import torch


@pytest.fixture
def spied():
    """(model, seen): a clone with a second wrapper, which notes the list that it gets."""

    def add(model):
        import comfy.patcher_extension

        seen = []

        def wrapper(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
            seen.append(sigmas)
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)

        model = model.clone()
        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "another pack", wrapper)
        return model, seen

    return add


@pytest.mark.parametrize("theirs_first", [True, False])
def test_a_wrapper_that_was_added_before_sees_the_list_as_it_comes(
    run, analytic, perflow, schedule, noise, spied, theirs_first
):
    """One that was added after it sees the steps that are taken. The UNet is told the same in both orders."""
    import comfy.samplers
    from analytic_model import sample

    if theirs_first:
        model, seen = spied(analytic)
        model = perflow(model=model)
    else:
        model, seen = spied(perflow())
    karras = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "karras", 6)
    unet = model.model.diffusion_model
    unet.seen.clear()
    sample(model, karras, noise)
    assert unet.seen == [1000, 875, 750, 625, 500, 250]
    (found,) = seen
    expected = karras if theirs_first else schedule(model, 6)
    assert torch.allclose(found, expected, rtol=1e-5)
    assert theirs_first == bool(torch.equal(found, karras))
