"""LocalBlend in a real ComfyUI, against explicit maps and loops that blend after every step.

In float64, where only the order of operations differs; 1e-6 is the latents' float32.
"""

import pytest
import torch
from trial.edited_prompts import KEY, LATENT, unedited

EDITED = "a castle, at night\na small wooden lighthouse, at the sunset"
WORDS = "castle, lighthouse, wooden"
STEPS = 8


@pytest.fixture
def base(models):
    """Random weights look everywhere alike; these look at some words here and at others there."""
    model = models("SD1.5", torch.float64)
    for name, weight in model.model.diffusion_model.named_parameters():
        if "attn2.to_q" in name:
            weight.data *= 10
    return model


@pytest.fixture
def blending(p2p):
    """(MODEL) -> the node's outputs with LocalBlend; MODEL and positive of the same by explicit maps; their blend."""
    from explicit_maps import LocalBlend, with_explicit_maps

    def call(model, latent=LATENT, threshold=0.85):
        made = p2p(edited=EDITED, model=model, blend=WORDS, blend_threshold=threshold, latent=latent)
        plan = made[1][0][1][KEY]
        blend = LocalBlend(plan.words, threshold, [("input", 3), ("output", 2), ("output", 3)], 8)
        cross, own = range(int(0.8 * (STEPS + 1))), range(int(0.4 * STEPS))
        return made, (with_explicit_maps(model, *plan.edits, cross, own, blend), unedited(made[1])), blend

    return call


@pytest.fixture
def custom(run, encode):
    """SamplerCustom: output and denoised output."""

    def call(model, positive, latent, sampler, sigmas):
        given = {"add_noise": True, "noise_seed": 0, "cfg": 7.5, "negative": encode("blue"), "latent_image": latent}
        outputs = run("SamplerCustom", model=model, positive=positive, sampler=sampler, sigmas=sigmas, **given)
        return [output["samples"] for output in outputs]

    return call


@pytest.fixture
def compared(run, blending, custom):
    """Relative errors of the rows; fails where the masks did not change as they should."""
    import comfy.samplers
    from analytic_model import relative_error
    from explicit_maps import BlendedLoop

    def call(model, sampler, rule, sigmas=None, latent=LATENT, afresh=STEPS):
        (edited, positive, batch), theirs, blend = blending(model, latent)
        if sigmas is None:
            sigmas = run("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0)[0]
        loop = comfy.samplers.KSAMPLER(BlendedLoop(blend, rule, afresh))
        wanted, _ = custom(*theirs, batch, loop, sigmas)
        found, denoised = custom(edited, positive, batch, sampler, sigmas)
        check(torch.stack(blend.masks)[:, :, 0].bool())
        outside = ~blend.masks[-1].bool().expand_as(found)
        for samples in (found, denoised):
            assert torch.equal(samples[outside], samples[:1].expand_as(samples)[outside])
        return [relative_error(found[row], wanted[row]) for row in range(3)]

    return call


def check(masks):
    """Of [calls, rows, H, W]: pixels left, came, and came back."""
    was, becomes = masks[:-1, 1:], masks[1:, 1:]
    assert (was & ~becomes).any()
    assert (~was & becomes).any()
    assert any((masks[:i].any(0) & ~masks[i] & masks[i + 1 :].any(0)).any() for i in range(1, len(masks) - 1))


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_2m"])
def test_stock_samplers(run, base, compared, name):
    assert max(compared(base, run("KSamplerSelect", sampler_name=name)[0], name)) < 1e-6


@pytest.mark.parametrize("name", ["euler_ancestral", "lcm", "dpmpp_sde", "er_sde"])
def test_the_source_keeps_its_noise(base, p2p, sample, name):
    """Of a stochastic sampler: it is the picture that the same seed gives without a blend."""
    alone, blended = (
        sample(*p2p(edited=EDITED, model=base, blend=blend, blend_threshold=0.85), sampler_name=name)
        for blend in ("", WORDS)
    )
    assert torch.equal(blended[0], alone[0])
    assert not torch.equal(blended[1], alone[1])


def test_a_list_without_a_step(base, p2p, custom, run):
    model, positive, latent = p2p(model=base, edited=EDITED, blend=WORDS)
    found, _ = custom(model, positive, latent, run("KSamplerSelect", sampler_name="euler")[0], torch.tensor([1.0]))
    assert found.shape == (3, 4, 16, 16)


@pytest.mark.parametrize("solver", ["heun", "ab2"])
def test_our_solvers_without_windows(run, base, compared, solver):
    assert max(compared(base, run("PeRFlowSampler", solver=solver)[0], solver)) < 1e-6


@pytest.fixture
def perflow_base(run, base):
    sampling = {"prediction_type": "ddim_eps", "windows": 4, "align_steps": True}
    return run("PeRFlowModelSampling", model=base, **sampling)[0]


@pytest.mark.parametrize("end", ["zero", "reference"])
@pytest.mark.parametrize("solver", ["euler", "ab2"])
def test_our_solvers_in_windows(run, perflow_base, compared, schedule, solver, end):
    """Two steps in each window, of which the second remembers the first."""
    sigmas = schedule(perflow_base, STEPS, end=end)
    assert max(compared(perflow_base, run("PeRFlowSampler", solver=solver)[0], solver, sigmas, afresh=2)) < 1e-6


def test_a_noise_mask(run, base, compared):
    """The latent is the loop's; what the UNet sees of it is blended with the picture."""
    random = torch.Generator().manual_seed(1)
    latent = {
        "samples": torch.randn(1, 4, 16, 16, generator=random),
        "noise_mask": torch.rand(1, 1, 128, 128, generator=random),
    }
    assert max(compared(base, run("KSamplerSelect", sampler_name="euler")[0], "euler", latent=latent)) < 1e-6


def test_several_pictures(run, base, p2p, sample):
    """Each is blended by its own masks."""
    from analytic_model import relative_error

    edit = {"edited": EDITED, "model": base, "blend": WORDS, "blend_threshold": 0.85}

    def blended(latent):
        model, positive, batch = p2p(**edit, latent=latent)
        return sample(model, positive, batch, 7.5)

    both = blended({"samples": torch.zeros(2, 4, 16, 16), "batch_index": [4, 2]})
    for picture, index in enumerate([4, 2]):
        alone = blended({"samples": torch.zeros(1, 4, 16, 16), "batch_index": [index]})
        assert relative_error(both[3 * picture :][:3], alone) < 1e-6


def test_a_sampler_that_changes_the_size(base, p2p, custom):
    from comfy_extras.nodes_advanced_samplers import SamplerLCMUpscale

    model, positive, latent = p2p(model=base, edited=EDITED, blend=WORDS)
    growing = SamplerLCMUpscale.execute(scale_ratio=2.0, scale_steps=-1, upscale_method="bilinear").result[0]
    sentence = r"^Prompt-to-Prompt cannot blend a latent of 32 x 32 that was 16 x 16 before, expected [^\n]+\.$"
    with pytest.raises(ValueError, match=sentence):
        custom(model, positive, latent, growing, torch.tensor([10.0, 1.0, 0.0]))


def test_a_sampler_without_a_loop(base, p2p, custom):
    """Blending it is not possible, and nothing else would say so."""
    import comfy.samplers

    class Own(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
            return noise

    model, positive, latent = p2p(model=base, edited=EDITED, blend=WORDS)
    with pytest.raises(ValueError, match=r"^Prompt-to-Prompt cannot blend in the sampler Own, expected [^\n]+\.$"):
        custom(model, positive, latent, Own(), torch.tensor([1.0, 0.0]))
    model, positive, latent = p2p(model=base, edited=EDITED)
    assert custom(model, positive, latent, Own(), torch.tensor([1.0, 0.0]))[0].shape == (3, 4, 16, 16)
