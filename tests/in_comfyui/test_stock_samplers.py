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
@pytest.mark.parametrize("steps", [*range(4, 13), 16])
def test_every_scheduler_gives_the_official_steps(perflow, expected, ksampler, prediction_type, steps):
    import comfy.samplers
    from analytic_model import relative_error

    model = perflow(prediction_type)
    wanted = {steps: expected(model, steps)}
    more = {6: 7, 9: 10, 12: 13, 16: 17}  # ddim_uniform makes that many of these: README says so
    assert len(comfy.samplers.SCHEDULER_NAMES) >= 9
    for scheduler in comfy.samplers.SCHEDULER_NAMES:
        listed = len(comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)) - 1
        if listed not in wanted:
            assert (scheduler, listed) == ("ddim_uniform", more[steps])
            wanted[listed] = expected(model, listed)
        assert relative_error(ksampler(model, steps, scheduler), wanted[listed]) < TOLERANCE, scheduler


@pytest.mark.parametrize(
    ("steps", "denoise", "schedulers"),
    [
        (4, 0.5, ["simple", "sgm_uniform", "beta"]),
        (1, 0.25, ["simple", "sgm_uniform"]),
        (6, 0.75, ["simple", "sgm_uniform"]),
    ],
)
def test_denoise_of_ksampler(perflow, expected, ksampler, steps, denoise, schedulers):
    """Where the scheduler's start is that of denoise but for a rounding."""
    from analytic_model import relative_error

    model = perflow()
    image = {"samples": torch.randn(1, 4, 4, 4, generator=torch.manual_seed(1))}
    wanted = expected(model, steps, latent=image, denoise=denoise)
    for scheduler in schedulers:
        found = ksampler(model, steps, scheduler, denoise=denoise, latent=image)
        assert relative_error(found, wanted) < TOLERANCE, scheduler


def test_no_two_calls_are_near(perflow, monkeypatch):
    """Every scheduler from wherever it starts an image: as many steps, none shorter than 5 timesteps, unless all are.

    The lists are KSampler's own.
    """
    import comfy.samplers

    model = perflow()
    sampling = model.get_model_object("model_sampling")
    tables = {}

    def calculate_sigmas(model_sampling, scheduler, steps, make=comfy.samplers.calculate_sigmas):
        if (scheduler, steps) not in tables:
            tables[scheduler, steps] = make(model_sampling, scheduler, steps)
        return tables[scheduler, steps]

    monkeypatch.setattr(comfy.samplers, "calculate_sigmas", calculate_sigmas)
    aligned = 0
    for scheduler in comfy.samplers.SCHEDULER_NAMES:
        for steps in range(1, 13):
            for denoise in [0.05 * i for i in (*range(1, 20, 2), 10, 20)]:
                k = comfy.samplers.KSampler(model, steps, "cpu", "euler", scheduler, denoise)
                sigmas = sampling.align(k.sigmas, from_noise=False)
                assert len(sigmas) == len(k.sigmas)
                T = sampling.chord.path_timesteps(sigmas)
                gaps = T[:-2] - T[1:-1]
                assert (gaps >= min(5, T[0] / steps / 2 - 1)).all(), (scheduler, steps, denoise, T)
                aligned += 1
    assert aligned == len(comfy.samplers.SCHEDULER_NAMES) * 12 * 12


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


@pytest.fixture
def in_parts(run, prompts, latent):
    """KSamplerAdvanced twice, cut at a step; the LATENT."""

    def sample(model, steps, cut, scheduler="simple"):
        common = {"model": model, "noise_seed": SEED, "steps": steps, "cfg": 1.0, "sampler_name": "euler"} | prompts
        common["scheduler"] = scheduler
        first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": cut, "return_with_leftover_noise": "enable"}
        second = {"add_noise": "disable", "start_at_step": cut, "end_at_step": 10000}
        second["return_with_leftover_noise"] = "disable"
        half_way = run("KSamplerAdvanced", latent_image=latent, **first, **common)[0]
        return run("KSamplerAdvanced", latent_image=half_way, **second, **common)[0]

    return sample


def test_parts_share_their_steps_each_by_itself_and_say_so(analytic, perflow, in_parts, caplog):
    """The whole is 1000 875 | 750 625 | 500 | 250, which neither part can know."""
    model, seen = perflow(), analytic.model.diffusion_model.seen
    seen.clear()
    with caplog.at_level("INFO"):
        in_parts(model, 6, 3)
    assert seen == [1000, 875, 750, 500, 375, 250]
    lines = [record.message for record in caplog.records if "PeRFlow" in record.message]
    assert [line.split(". ")[0] for line in lines] == [
        "PeRFlow: steps aligned to the windows: 1000 875 | 750",
        "PeRFlow: steps aligned to the windows: 500 375 | 250",
    ]
    assert all(line.endswith("use Window Schedule with SplitSigmas to get the same steps") for line in lines)


def test_whole_runs_are_not_called_parts(perflow, ksampler, caplog):
    """Text to image, and image to image, which begins below the top with noise of its own."""
    image = {"samples": torch.ones(1, 4, 4, 4)}
    with caplog.at_level("INFO"):
        ksampler(perflow(), 6, "karras")
        ksampler(perflow(), 6, "karras", denoise=0.6, latent=image)
    lines = [record.message for record in caplog.records if "PeRFlow" in record.message]
    assert len(lines) == 2
    assert not any("part" in line for line in lines)


@pytest.mark.parametrize("steps", [4, 6, 9])
def test_split_sigmas_is_exact_at_every_cut(run, perflow, schedule, expected, prompts, latent, steps):
    from analytic_model import relative_error

    model = perflow()
    wanted = expected(model, steps)
    common = {"model": model, "noise_seed": SEED, "cfg": 2.0, "sampler": run("KSamplerSelect", sampler_name="euler")[0]}
    for cut in range(1, steps):
        high, low = run("SplitSigmas", sigmas=schedule(model, steps), step=cut)
        half_way = run("SamplerCustom", add_noise=True, sigmas=high, latent_image=latent, **common, **prompts)[0]
        found = run("SamplerCustom", add_noise=False, sigmas=low, latent_image=half_way, **common, **prompts)[0]
        assert relative_error(found["samples"], wanted) < TOLERANCE, cut


def test_the_model_node_shows_where_the_last_run_stood(comfyui, run, analytic, ksampler, monkeypatch):
    from server import PromptServer

    shown = []
    monkeypatch.setattr(PromptServer.instance, "client_id", "a page")
    monkeypatch.setattr(PromptServer.instance, "send_progress_text", lambda text, node, _: shown.append((node, text)))
    monkeypatch.setattr(comfyui.nodes["PeRFlowModelSampling"], "hidden", type("Hidden", (), {"unique_id": "7"}))
    (model,) = run("PeRFlowModelSampling", model=analytic, prediction_type="diff_eps", windows=4, align_steps=True)
    ksampler(model, 6, "karras")
    ksampler(model, 4, "simple")  # on the grid already
    assert shown == [
        ("7", "diff_eps, 4 windows"),
        ("7", "diff_eps, 4 windows  \nsteps aligned to the windows: 1000 875 | 750 625 | 500 | 250"),
        ("7", "diff_eps, 4 windows"),
    ]


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


def test_an_empty_latent_starts_at_pure_noise(analytic, perflow, ksampler):
    """With every scheduler and denoise; an image keeps the scheduler's start, but for its rounding."""
    model, seen = perflow(), analytic.model.diffusion_model.seen
    image = {"samples": torch.randn(1, 4, 4, 4, generator=torch.manual_seed(1))}
    for inputs, wanted in [
        ({"scheduler": "ddim_uniform"}, [1000, 750, 500, 250]),
        ({"scheduler": "simple", "denoise": 0.5}, [1000, 750, 500, 250]),
        ({"scheduler": "ddim_uniform", "latent": image}, [750, 625, 500, 250]),
    ]:
        seen.clear()
        ksampler(model, 4, cfg=1.0, **inputs)
        assert seen == wanted


SECOND_ORDER = ["heun", "dpmpp_2m", "dpm_2", "uni_pc", "lms", "ipndm", "deis", "res_multistep", "gradient_estimation"]


def test_other_samplers_follow_the_same_path(perflow, ksampler):
    """Not what the weights were trained for, but with many steps all end where euler does with three times as many."""
    from analytic_model import relative_error

    model = perflow()
    wanted = ksampler(model, 144, "simple")
    for sampler_name in SECOND_ORDER:
        assert relative_error(ksampler(model, 48, "simple", sampler_name=sampler_name), wanted) < 0.02, sampler_name
    assert torch.equal(ksampler(model, 6, "simple", sampler_name="ddim"), ksampler(model, 6, "simple"))


@pytest.mark.parametrize("sampler_name", ["euler_ancestral", "lcm", "dpmpp_sde", "er_sde"])
def test_samplers_that_add_noise(perflow, ksampler, sampler_name):
    """Nothing grows beyond what euler gives; the picture is the seed's."""
    model = perflow()
    found = ksampler(model, 6, "simple", sampler_name=sampler_name)
    assert found.isfinite().all()
    assert 0.1 < found.std() / ksampler(model, 6, "simple").std() < 1.5
    assert torch.equal(found, ksampler(model, 6, "simple", sampler_name=sampler_name))
