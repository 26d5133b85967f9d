"""KSampler and its relatives are right without asking: the alignment wrapper."""

import pytest
import torch

TOLERANCE = 5e-6
SEED = 5


@pytest.fixture
def latent():
    return {"samples": torch.zeros(1, 4, 4, 4)}


@pytest.fixture
def prompts(comfyui):
    from analytic_model import conditioning

    return {"positive": conditioning(1), "negative": conditioning(0)}


@pytest.fixture
def expected(run, schedule, prompts, latent):
    """SamplerCustom on the Window Schedule."""

    def sample(model, steps, cfg=2.0, latent=latent, **inputs):
        return run(
            "SamplerCustom",
            model=model,
            add_noise=True,
            noise_seed=SEED,
            cfg=cfg,
            sampler=run("KSamplerSelect", sampler_name="euler")[0],
            sigmas=schedule(model, steps, **inputs),
            latent_image=latent,
            **prompts,
        )[0]["samples"]

    return sample


@pytest.fixture
def ksampler(run, prompts, latent):
    def sample(model, steps, scheduler, cfg=2.0, denoise=1.0, latent=latent, sampler_name="euler"):
        return run(
            "KSampler",
            model=model,
            seed=SEED,
            steps=steps,
            cfg=cfg,
            sampler_name=sampler_name,
            scheduler=scheduler,
            latent_image=latent,
            denoise=denoise,
            **prompts,
        )[0]["samples"]

    return sample


@pytest.mark.parametrize("prediction_type", ["diff_eps", "ddim_eps", "velocity"])
@pytest.mark.parametrize("steps", range(4, 13))
def test_every_scheduler_gives_the_official_steps(perflow, expected, ksampler, prediction_type, steps):
    import comfy.samplers
    from analytic_model import relative_error

    model = perflow(prediction_type)
    wanted = expected(model, steps)
    schedulers = [name for name in comfy.samplers.SCHEDULER_NAMES if name != "ddim_uniform"]
    assert len(schedulers) >= 8
    for scheduler in schedulers:
        assert relative_error(ksampler(model, steps, scheduler), wanted) < TOLERANCE, scheduler


@pytest.mark.parametrize(("steps", "denoise"), [(4, 0.5), (1, 0.25), (6, 0.75)])
def test_denoise_of_ksampler(perflow, expected, ksampler, steps, denoise):
    from analytic_model import relative_error

    model = perflow()
    image = {"samples": torch.randn(1, 4, 4, 4, generator=torch.manual_seed(1))}
    wanted = expected(model, steps, latent=image, denoise=denoise)
    assert relative_error(ksampler(model, steps, "simple", denoise=denoise, latent=image), wanted) < TOLERANCE


@pytest.mark.parametrize(("steps", "cut"), [(4, 1), (4, 2), (8, 3), (8, 5), (12, 6)])
def test_ksampler_advanced_cut_at_a_grid_point(run, perflow, expected, prompts, latent, steps, cut):
    from analytic_model import relative_error

    model = perflow()
    common = {"model": model, "noise_seed": SEED, "steps": steps, "cfg": 2.0, "sampler_name": "euler"} | prompts
    common["scheduler"] = "simple"
    (first,) = run(
        "KSamplerAdvanced",
        add_noise="enable",
        latent_image=latent,
        start_at_step=0,
        end_at_step=cut,
        return_with_leftover_noise="enable",
        **common,
    )
    (second,) = run(
        "KSamplerAdvanced",
        add_noise="disable",
        latent_image=first,
        start_at_step=cut,
        end_at_step=10000,
        return_with_leftover_noise="disable",
        **common,
    )
    assert relative_error(second["samples"], expected(model, steps)) < TOLERANCE


def test_sampler_custom_nodes(run, perflow, expected, prompts, latent):
    """BasicScheduler's list, through SamplerCustom and SamplerCustomAdvanced."""
    from analytic_model import relative_error

    model = perflow()
    sampler = run("KSamplerSelect", sampler_name="euler")[0]
    sigmas = run("BasicScheduler", model=model, scheduler="karras", steps=6, denoise=1.0)[0]
    custom = run(
        "SamplerCustom",
        model=model,
        add_noise=True,
        noise_seed=SEED,
        cfg=2.0,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
        **prompts,
    )[0]
    advanced = run(
        "SamplerCustomAdvanced",
        noise=run("RandomNoise", noise_seed=SEED)[0],
        guider=run("CFGGuider", model=model, cfg=2.0, **prompts)[0],
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
    )[0]
    for found in (custom, advanced):
        assert relative_error(found["samples"], expected(model, 6)) < TOLERANCE


def test_align_steps_off_changes_nothing(analytic, perflow, ksampler, comfyui):
    """The UNet then sees the scheduler's own levels, one by one."""
    import comfy.samplers

    model = perflow(align_steps=False)
    sampling = model.get_model_object("model_sampling")
    for scheduler in ("karras", "ddim_uniform", "beta"):
        wanted = comfy.samplers.calculate_sigmas(sampling, scheduler, 6)
        analytic.model.diffusion_model.seen.clear()
        ksampler(model, 6, scheduler, cfg=1.0)
        found = torch.tensor(analytic.model.diffusion_model.seen)
        assert torch.equal(found, sampling.timestep(wanted[:-1]))


def test_the_log_says_what_was_aligned_once_a_run(perflow, ksampler, caplog):
    model = perflow()
    with caplog.at_level("INFO"):
        ksampler(model, 6, "karras")
        ksampler(model, 4, "simple")  # on the grid already: nothing to say
    lines = [record.message for record in caplog.records if "PeRFlow" in record.message]
    assert lines == ["PeRFlow: steps aligned to the windows: 1000 875 | 750 625 | 500 | 250"]


def test_another_model_sampling_after_ours_wins(run, perflow, ksampler, analytic):
    stock = run("ModelSamplingDiscrete", model=perflow(), sampling="eps", zsnr=False)[0]
    assert torch.equal(ksampler(stock, 6, "karras"), ksampler(analytic, 6, "karras"))


@pytest.mark.parametrize("sampler_name", ["heun", "dpmpp_2m", "euler_ancestral", "lcm", "dpm_2", "uni_pc", "ddim"])
def test_other_samplers_run(perflow, ksampler, sampler_name):
    """Not what the weights were trained for, but no sampler fails or blows up."""
    found = ksampler(perflow(), 6, "simple", sampler_name=sampler_name)
    assert found.isfinite().all()
    assert found.abs().max() < 100
