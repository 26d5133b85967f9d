"""Model Sampling InstaFlow: the official numbers, and a plain KSampler that is right without asking."""

import pytest
import torch

TOLERANCE = 5e-6
FAMILIES = ["rectified_flow", "rectified_diffusion"]


@pytest.fixture(scope="module")
def reference(golden):
    return golden("instaflow")


@pytest.fixture
def base(comfyui, reference):
    from family_models import laid_out_model

    return laid_out_model(reference)


@pytest.fixture
def instaflow(run, base):
    """The analytic MODEL with the sampling of a family."""

    def make(family="rectified_flow", align_steps=True, model=base):
        return run("InstaFlowModelSampling", model=model, family=family, align_steps=align_steps)[0]

    return make


def float32(T):
    """1000 (1 - i / N) as the float32 that reaches the UNet, to two units in the last place."""
    return pytest.approx(T, rel=2.4e-7)


@pytest.mark.parametrize("i", range(5))
def test_official_numbers(instaflow, reference, i):
    """2-Rectified-Flow and InstaFlow, from a list that is as uneven as karras'."""
    from analytic_model import relative_error, sample, tensor
    from family_models import start, told

    case = reference["cases"][i]
    model = instaflow()
    sigmas = torch.linspace(1, 0, case["steps"] + 1) ** 3
    found = sample(model, sigmas, start(reference), cfg=case["cfg"])
    assert told(model) == float32(case["timesteps"])
    assert relative_error(found, tensor(case["final"], reference["shape"])) < TOLERANCE


@pytest.mark.parametrize("cfg", [1.0, 1.5])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_scheduler_is_right(run, core, instaflow, family, cfg):
    """Against euler on the even list, 1 to 9 steps, whatever KSampler's scheduler."""
    import comfy.samplers
    from analytic_model import conditioning, relative_error
    from family_models import EMPTY, ksampler, told

    model, exact = instaflow(family), instaflow(family, align_steps=False)
    sampling = exact.get_model_object("model_sampling")
    for steps in range(1, 10):
        T = [1000 * (1 - i / steps) for i in range(steps)]
        levels = (
            torch.tensor(T) / 1000
            if family == "rectified_flow"
            else sampling.sigmas[core("sampling.phased").trailing(steps)]
        )
        wanted = run(
            "SamplerCustom",
            model=exact,
            add_noise=True,
            noise_seed=5,
            cfg=cfg,
            positive=conditioning(1),
            negative=conditioning(0),
            sampler=run("KSamplerSelect", sampler_name="euler")[0],
            sigmas=torch.cat([levels, torch.zeros(1)]),
            latent_image=EMPTY,
        )[0]["samples"]
        seen = told(model)
        assert seen == float32(T if family == "rectified_flow" else core("sampling.phased").trailing(steps).tolist())
        for scheduler in comfy.samplers.SCHEDULER_NAMES:
            listed = len(comfy.samplers.calculate_sigmas(sampling, scheduler, steps)) - 1
            if listed > steps:  # the next test; README names these steps
                assert (scheduler, {6: 7, 7: 8}[steps]) == ("ddim_uniform", listed)
                continue
            found = ksampler(run, model, steps, scheduler, cfg=cfg)
            assert relative_error(found, wanted) < TOLERANCE, (steps, scheduler)
            assert told(model) == float32(seen), (steps, scheduler)


def test_as_many_steps_as_the_list_has(run, instaflow):
    """ddim_uniform makes 7 of 6."""
    from family_models import ksampler, told

    model = instaflow()
    ksampler(run, model, 6, "ddim_uniform")
    assert told(model) == float32([1000 * (1 - i / 7) for i in range(7)])


@pytest.mark.parametrize("family", FAMILIES)
def test_denoise_of_ksampler(run, instaflow, family):
    """The first level is the scheduler's, the rest is even below it; simple stands where denoise says."""
    from family_models import ksampler, told

    model = instaflow(family)
    image = {"samples": torch.randn(1, 4, 4, 4, generator=torch.manual_seed(1))}
    ksampler(run, model, 2, "simple", denoise=0.5, latent_image=image)
    assert told(model) == ([500, 250] if family == "rectified_flow" else [499, 249])
    ksampler(run, model, 4, "karras", denoise=0.5, latent_image=image)
    first, *rest = told(model)
    assert 0 < first < 500  # karras' own place for it
    assert rest == pytest.approx([first * (1 - i / 4) for i in (1, 2, 3)], abs=2 if "diffusion" in family else 1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_ksampler_advanced_in_two_parts(run, instaflow, family, cut):
    from analytic_model import relative_error
    from family_models import advanced, ksampler

    model = instaflow(family)
    half_way = advanced(run, model, 0, cut)
    found = advanced(run, model, cut, 10000, latent_image=half_way)
    assert relative_error(found["samples"], ksampler(run, model, 4, "simple")) < TOLERANCE


def test_lists_by_hand(instaflow, reference):
    """A falling list becomes even, unless align_steps is off; a rising one stays as it is."""
    from analytic_model import sample
    from family_models import start, told

    sigmas = torch.tensor([1.0, 0.9, 0.1, 0.0])
    model = instaflow()
    sample(model, sigmas, start(reference))
    assert told(model) == float32([1000, 2000 / 3, 1000 / 3])
    sample(instaflow(align_steps=False), sigmas, start(reference))
    assert told(model) == float32([1000, 900, 100])
    sample(model, torch.tensor([0.1, 0.4, 0.9]), start(reference), start(reference))
    assert told(model) == float32([100, 400])


def test_an_image_keeps_ddim_uniforms_start(run, instaflow):
    """On an empty latent it is pure noise that is meant, on an image the list's own start."""
    from family_models import ksampler, told

    model = instaflow()
    image = {"samples": torch.randn(1, 4, 4, 4, generator=torch.manual_seed(1))}
    ksampler(run, model, 4, "ddim_uniform", latent_image=image)
    assert told(model) == float32([752, 564, 376, 188])


def test_the_log_says_what_was_changed(run, instaflow, caplog):
    from family_models import ksampler

    with caplog.at_level("INFO"):
        ksampler(run, instaflow(), 3, "karras")
        ksampler(run, instaflow(), 4, "simple")  # even already: nothing to say
        ksampler(run, instaflow("rectified_diffusion"), 4, "karras")
    lines = [record.message for record in caplog.records if "InstaFlow" in record.message]
    assert lines == [
        "InstaFlow: steps spaced evenly: 1000 666.667 333.333",
        "InstaFlow: steps spaced evenly: 999 749 499 249",
    ]


def test_another_model_sampling_after_ours_wins(run, instaflow, base):
    from family_models import ksampler

    stock = run("ModelSamplingDiscrete", model=instaflow(), sampling="eps", zsnr=False)[0]
    assert torch.equal(ksampler(run, stock, 6, "karras"), ksampler(run, base, 6, "karras"))


def test_the_last_of_two_counts(run, instaflow):
    """One wrapper, and the second node's family and align_steps."""
    twice = instaflow("rectified_flow", model=instaflow("rectified_diffusion"))
    assert twice.get_model_object("model_sampling").sigma_max == 1
    assert len(twice.get_wrappers("outer_sample", "perflow")) == 1
    (off,) = instaflow(align_steps=False, model=twice).get_wrappers("outer_sample", "perflow")
    assert off.keywords["align_steps"] is False


def test_the_model_it_was_given_stays_as_it_was(base, instaflow):
    before = base.get_model_object("model_sampling")
    instaflow()
    assert base.get_model_object("model_sampling") is before
    assert not base.get_wrappers("outer_sample", "perflow")


@pytest.mark.parametrize("family", FAMILIES)
def test_previews_are_the_true_data_estimate(instaflow, reference, family):
    """x0 = x + t v on the line, X - sigma eps on the table; in float64 from the latents the callback saw."""
    from analytic_function import guided
    from analytic_model import relative_error, sample
    from family_models import start

    model, seen = instaflow(family), []
    top = float(model.get_model_object("model_sampling").sigma_max)
    sigmas = torch.linspace(top, 0, 4)
    sample(model, sigmas, start(reference), callback=lambda i, x0, x, n: seen.append((x0, x.double())))
    levels = [1, 2 / 3, 1 / 3] if family == "rectified_flow" else []
    if family == "rectified_diffusion":
        levels = [float(model.get_model_object("model_sampling").sigmas[t]) for t in (999, 666, 332)]
    for (found, x), sigma, t in zip(seen, levels, (999, 666, 332), strict=True):
        if family == "rectified_flow":
            x0 = x + sigma * guided(reference, x, 1000 * sigma, 1.0)
        else:
            x0 = x - sigma * guided(reference, x / (1 + sigma**2) ** 0.5, t, 1.0)
        assert relative_error(found, x0) < TOLERANCE


@pytest.mark.parametrize("sampler_name", ["heun", "dpmpp_2m", "euler_ancestral", "lcm", "dpm_2", "uni_pc", "ddim"])
def test_other_samplers_run(run, instaflow, sampler_name):
    """Not the official samplers, but no sampler fails or blows up."""
    from family_models import ksampler

    for family in FAMILIES:
        found = ksampler(run, instaflow(family), 4, "simple", sampler_name=sampler_name)
        euler = ksampler(run, instaflow(family), 4, "simple")
        assert found.isfinite().all()
        assert found.abs().max() < 3 * euler.abs().max()


def test_no_step_waits_for_the_device(instaflow):
    """Meta tensors have no values: an attempt to read one is an error."""
    sampling, sigma, x = instaflow().get_model_object("model_sampling"), torch.ones(2), torch.ones(2, 4, 8, 8)
    sigma, x = sigma.to("meta"), x.to("meta")
    for found in (sampling.calculate_input(sigma, x), sampling.calculate_denoised(sigma, x, x)):
        assert found.shape == x.shape
    assert sampling.timestep(sigma).shape == sigma.shape


def test_percentages_lie_between_the_steps(instaflow):
    sampling = instaflow().get_model_object("model_sampling")
    found = [sampling.percent_to_sigma(p) for p in (0.0, 0.25, 1.0)]
    assert found == [1.0, pytest.approx(0.75025, rel=1e-7), 0.0]


@pytest.mark.parametrize(
    ("family", "align_steps", "expected"),
    [
        ("rectified_flow", True, "InstaFlow: 1 step, CFG 1. 2-Rectified-Flow: 2 to 25 steps, CFG 1 to 2."),
        ("rectified_flow", False, "align_steps is off: only the scheduler simple has even steps."),
        ("rectified_diffusion", True, "rd: 1, 2, 4, 8, 16 or 25 steps, CFG 1.5. cm: 1 or 2 steps, CFG 1."),
    ],
)
def test_the_node_says_what_it_set(comfyui, base, family, align_steps, expected):
    node = comfyui.nodes["InstaFlowModelSampling"]
    text = node.execute(model=base, family=family, align_steps=align_steps).ui["text"][0]
    assert text.splitlines()[-1] == expected


class TestWrongUse:
    @pytest.mark.parametrize(("width", "name"), [(1024, r"SD2\.x"), (2048, "SDXL"), (640, "BaseModel")])
    def test_another_layout(self, comfyui, reference, instaflow, width, name):
        from family_models import laid_out_model

        with pytest.raises(ValueError, match=rf"^Model Sampling InstaFlow got a BaseModel model \({name}\), exp"):
            instaflow(model=laid_out_model(reference, width))

    def test_sd3(self, comfyui, reference, instaflow):
        from family_models import sd3_model

        with pytest.raises(
            ValueError, match=r"got a AnalyticSD3 model \(AnalyticSD3\), expected the SD1\.5 layout of [^\n]+\.$"
        ):
            instaflow(model=sd3_model(reference))

    def test_a_perflow_model(self, base, perflow, instaflow):
        with pytest.raises(
            ValueError, match=r"got a model with PeRFlow's sampling, expected [^\n]+: connect its loader"
        ):
            instaflow(model=perflow(model=base))

    def test_perflow_on_top(self, instaflow, perflow):
        with pytest.raises(ValueError, match="without another model sampling node before this one"):
            perflow(model=instaflow())

    def test_perflows_schedule(self, instaflow, schedule):
        with pytest.raises(ValueError, match="Window Schedule got a model without time windows"):
            schedule(instaflow())
