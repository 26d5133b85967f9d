"""What works on an ordinary epsilon model works here: image to image, inpainting, batches, CFG, regions, previews."""

import pytest
import torch

TOLERANCE = 5e-6
SCALE = 0.18215  # SD1.5's latent scale


@pytest.fixture
def exact(t2i, core):
    """The same sampling in float64, by the core alone."""
    from analytic_model import AnalyticUNet

    append_dims, denoised = core("sampling.parameterization").append_dims, core("sampling.parameterization").denoised

    def sample(model, sigmas, noise, latent=None, cfg=1.0):
        sampling = model.get_model_object("model_sampling")
        chord = core("sampling.chord").WindowChord.from_alphas_cumprod(sampling.base.alphas_cumprod, sampling.chord.K)

        def unet(X, sigma):
            z, T = append_dims(chord.signal(sigma), X) * X, append_dims(chord.timestep(sigma), X)
            cond, uncond = (AnalyticUNet.output(t2i[name], z, T) for name in ("model_cond", "model_uncond"))
            return denoised(sampling.prediction_type, chord, sigma, uncond + cfg * (cond - uncond), X)

        sigmas, noise = sigmas.double(), noise.double()
        start = noise / chord.c[0] if sigmas[0] > 14.6 else sigmas[0] * noise
        return core("sampling.solvers").sample_euler(
            unet, start + (0 if latent is None else latent.double()), sigmas, chord=chord
        )

    return sample


def random(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cfg", [1.0, 7.5])
@pytest.mark.parametrize("batch", [1, 3])
def test_batch_and_cfg(perflow, schedule, exact, batch, cfg):
    from analytic_model import relative_error, sample

    model, noise = perflow(), random(batch, 4, 8, 8)
    sigmas = schedule(model, 6)
    assert relative_error(sample(model, sigmas, noise, cfg=cfg), exact(model, sigmas, noise, cfg=cfg)) < TOLERANCE


@pytest.mark.parametrize(
    ("denoise", "timesteps"),
    [
        (0.25, [250, 187, 125, 62]),
        (0.5, [500, 375, 250, 125]),
        (0.6, [600, 500, 375, 250]),
        (1.0, [1000, 750, 500, 250]),
    ],
)
def test_image_to_image(analytic, perflow, schedule, exact, denoise, timesteps):
    from analytic_model import relative_error, sample

    model, noise, image = perflow(), random(1, 4, 8, 8), random(1, 4, 8, 8, seed=4)
    sigmas = schedule(model, 4, denoise=denoise)
    analytic.model.diffusion_model.seen.clear()
    found = sample(model, sigmas, noise, image)
    assert analytic.model.diffusion_model.seen == timesteps
    assert relative_error(found, exact(model, sigmas, noise, image)) < TOLERANCE


def test_inpainting_leaves_the_rest_untouched(perflow, schedule):
    from analytic_model import sample

    model, noise, image = perflow(), random(1, 4, 8, 8), random(1, 4, 8, 8, seed=4)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    found = sample(model, schedule(model, 4), noise, image, noise_mask=mask)
    assert (found - image)[..., :4].abs().max() < 1e-5
    assert (found - image)[..., 4:].abs().min() > 1e-3


def test_conditioning_by_timestep_range(run, perflow, schedule, comfyui):
    """One prompt above timestep 600 and another below it, against two runs cut there."""
    import comfy.sample
    import comfy.samplers
    from analytic_model import conditioning, relative_error

    model, noise = perflow(), random(1, 4, 8, 8)
    sigmas, sampler = schedule(model, 4), comfy.samplers.sampler_object("euler")
    early, late = conditioning(1), conditioning(0)

    def sample(positive, sigmas, latent, noise=noise):
        return comfy.sample.sample_custom(model, noise, 1.0, sampler, sigmas, positive, late, latent, disable_pbar=True)

    ranged = [
        *run("ConditioningSetTimestepRange", conditioning=early, start=0.0, end=0.4)[0],
        *run("ConditioningSetTimestepRange", conditioning=late, start=0.4, end=1.0)[0],
    ]
    found = sample(ranged, sigmas, torch.zeros_like(noise))
    first = sample(early, sigmas[:3], torch.zeros_like(noise))
    expected = sample(late, sigmas[2:], first, torch.zeros_like(noise))
    assert relative_error(found, expected) < TOLERANCE


def test_conditioning_by_area(run, perflow, schedule):
    """One prompt on the left, another on the right, against a run with each."""
    import comfy.sample
    import comfy.samplers
    from analytic_model import conditioning, relative_error

    model, noise = perflow(), random(1, 4, 16, 16)
    sigmas, sampler = schedule(model, 4), comfy.samplers.sampler_object("euler")
    left, right = conditioning(1), conditioning(0)

    def sample(positive):
        latent = torch.zeros_like(noise)
        return comfy.sample.sample_custom(
            model, noise, 1.0, sampler, sigmas, positive, right, latent, disable_pbar=True
        )

    half = {"width": 64, "height": 128, "y": 0, "strength": 1.0}
    areas = [
        *run("ConditioningSetArea", conditioning=left, x=0, **half)[0],
        *run("ConditioningSetArea", conditioning=right, x=64, **half)[0],
    ]
    found = sample(areas)
    assert relative_error(found[..., :8], sample(left)[..., :8]) < TOLERANCE
    assert relative_error(found[..., 8:], sample(right)[..., 8:]) < TOLERANCE


@pytest.mark.parametrize("prediction_type", ["diff_eps", "ddim_eps", "velocity"])
def test_live_preview_is_the_true_data_estimate(perflow, schedule, t2i, prediction_type):
    """At each window's start: the window's end by the paper's formula, then x0 from both ends of the chord."""
    from analytic_model import AnalyticUNet, relative_error, sample

    model, noise = perflow(prediction_type), random(1, 4, 8, 8)
    previews = []
    sample(model, schedule(model, 4), noise, callback=lambda i, x0, x, n: previews.append((i, n, x0, x)))
    alpha_bar = model.get_model_object("model_sampling").base.alphas_cumprod
    assert [(i, n) for i, n, _, _ in previews] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    for (_, _, found, X), start, end in zip(previews, (999, 749, 499, 249), (749, 499, 249, 0), strict=True):
        (c_s, s_s), (c_e, s_e) = ((alpha_bar[i].sqrt(), (1 - alpha_bar[i]).sqrt()) for i in (start, end))
        z_s = c_s * X.double()
        m = AnalyticUNet.output(t2i["model_cond"], z_s, torch.tensor(start + 1.0))
        gamma = c_s / c_e
        z_e = {
            "diff_eps": (z_s - (1 - gamma**2).sqrt() * m) / gamma,
            "ddim_eps": z_s / gamma + (s_e - s_s / gamma) * m,
            "velocity": z_s - 0.25 * m,
        }[prediction_type]
        x0 = (s_e * z_s - s_s * z_e) / (s_e * c_s - s_s * c_e)
        assert relative_error(found, x0) < 2e-5


def test_hand_over_to_the_base_model(run, analytic, perflow, schedule, t2i):
    """Two windows by PeRFlow, the rest by the base model from the same sigma, against a hand calculation."""
    import comfy.sample
    import comfy.samplers
    from analytic_model import AnalyticUNet, conditioning, relative_error

    model, noise = perflow("diff_eps"), random(1, 4, 8, 8)
    high, low = run("SplitSigmas", sigmas=schedule(model, 4), step=2)
    sampler = comfy.samplers.sampler_object("euler")
    common = (sampler, conditioning(1), conditioning(0))

    def sample(model, sigmas, noise, latent):
        sampler, positive, negative = common
        return comfy.sample.sample_custom(
            model, noise, 1.0, sampler, sigmas, positive, negative, latent, disable_pbar=True
        )

    half_way = sample(model, high, noise, torch.zeros_like(noise))
    found = sample(analytic, low, torch.zeros_like(noise), half_way) * SCALE

    alpha_bar = model.get_model_object("model_sampling").base.alphas_cumprod
    z = noise.double()
    for start, end in ((999, 749), (749, 499)):  # PeRFlow, diff_eps
        gamma = (alpha_bar[start] / alpha_bar[end]).sqrt()
        m = AnalyticUNet.output(t2i["model_cond"], z, torch.tensor(start + 1.0))
        z = (z - (1 - gamma**2).sqrt() * m) / gamma
    for start, end in ((499, 249), (249, None)):  # the base model: DDIM, whose timesteps are one lower
        m = AnalyticUNet.output(t2i["model_cond"], z, torch.tensor(float(start)))
        x0 = (z - (1 - alpha_bar[start]).sqrt() * m) / alpha_bar[start].sqrt()
        z = x0 if end is None else alpha_bar[end].sqrt() * x0 + (1 - alpha_bar[end]).sqrt() * m
    assert relative_error(found, z) < TOLERANCE


def test_percentages_lie_between_the_steps(perflow):
    sampling = perflow().get_model_object("model_sampling")
    assert sampling.percent_to_sigma(0.0) == 999999999.9
    assert sampling.percent_to_sigma(1.0) == 0.0
    level = sampling.percent_to_sigma(0.25)
    assert sampling.timestep(torch.tensor(level)).item() == pytest.approx(750.25, abs=1e-3)
    assert torch.tensor(level).item() == level  # the levels of the steps are float32 too


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
def test_each_step_is_previewed_once(perflow, schedule, run, solver, steps):
    """Steps of PeRFlow Sampler that are divided at window edges too; the last preview is the newest x0."""
    from analytic_model import sample

    model = perflow("ddim_eps")
    previews = []
    found = sample(
        model,
        schedule(model, steps, end="zero"),
        random(1, 4, 8, 8),
        sampler=run("PeRFlowSampler", solver=solver)[0],
        callback=lambda i, x0, x, n: previews.append((i, n, x0)),
    )
    assert [(i, n) for i, n, _ in previews] == [(i, steps) for i in range(steps)]
    if solver == "euler":
        torch.testing.assert_close(found, previews[-1][2])  # the step to zero ends at its x0
