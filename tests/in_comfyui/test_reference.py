"""The official scheduler's numbers through ComfyUI's own sampling in float32, with stock euler and PeRFlow Sampler."""

import pytest
import torch

TOLERANCE = 5e-6


def euler(run, kind):
    return run("PeRFlowSampler", solver="euler")[0] if kind == "PeRFlow Sampler" else "euler"


@pytest.mark.parametrize("kind", ["stock euler", "PeRFlow Sampler"])
def test_text_to_image(run, analytic, perflow, schedule, noise, t2i, kind):
    from analytic_model import relative_error, sample, tensor

    cases = [case for case in t2i["cases"] if 1000 % case["K"] == 0 and case["steps_requested"] >= case["K"]]
    assert len(cases) == 19
    for case in cases:
        model = perflow(case["prediction_type"], case["K"])
        sigmas = schedule(model, case["steps_requested"], end="reference")
        analytic.model.diffusion_model.seen.clear()
        found = sample(model, sigmas, noise, cfg=case["cfg"], sampler=euler(run, kind))
        assert analytic.model.diffusion_model.seen == case["timesteps"], case["id"]
        assert relative_error(found, tensor(case["final"], t2i["shape"])) < TOLERANCE, case["id"]


def test_windows_that_do_not_divide_1000(perflow, schedule, noise, t2i):
    """The official integer grid oversteps its own edges there; no published model has such windows."""
    from analytic_model import relative_error, sample, tensor

    for case in (case for case in t2i["cases"] if 1000 % case["K"]):
        model = perflow(case["prediction_type"], case["K"])
        found = sample(model, schedule(model, case["steps_requested"], end="reference"), noise)
        assert relative_error(found, tensor(case["final"], t2i["shape"])) < 2e-3


def image_to_image_error(perflow, schedule, reference, case, steps, denoise, noise_scale=1.0):
    from analytic_model import relative_error, sample, tensor

    noise, x0 = (tensor(reference[name], reference["shape"]).float() for name in ("noise", "x0"))
    model = perflow(case["prediction_type"], case["K"])
    sigmas = schedule(model, steps, denoise=denoise, end="reference")
    found = sample(model, sigmas, noise_scale * noise, x0, cfg=case["cfg"])
    return relative_error(found, tensor(case["final"], reference["shape"]))


@pytest.fixture(scope="module")
def i2i(golden):
    reference = golden("perflow_i2i")
    return reference, {case["id"].removeprefix("perflow_i2i_"): case for case in reference["cases"]}


@pytest.mark.parametrize(
    ("name", "steps", "denoise"),
    [
        ("ddim_eps_K4_n4_s0.5", 2, 0.5),
        ("ddim_eps_K4_n8_s0.6", 4, 0.5),
        ("diff_eps_K4_n6_s0.8", 4, 0.75),
        ("velocity_K4_n8_s0.75", 6, 0.75),
    ],
)
def test_image_to_image_from_a_window_edge(analytic, perflow, schedule, i2i, name, steps, denoise):
    reference, cases = i2i
    analytic.model.diffusion_model.seen.clear()
    assert image_to_image_error(perflow, schedule, reference, cases[name], steps, denoise) < TOLERANCE
    assert analytic.model.diffusion_model.seen == cases[name]["timesteps"]


def test_image_to_image_at_full_strength(perflow, schedule, i2i):
    """ComfyUI adds the noise in full, the official code sqrt(1 - ab[999]) = 0.9977 of it: nothing else differs."""
    reference, cases = i2i
    case = cases["diff_eps_K4_n4_s1.0"]
    assert image_to_image_error(perflow, schedule, reference, case, 4, 1.0, noise_scale=0.9976671955) < TOLERANCE
    assert 1e-3 < image_to_image_error(perflow, schedule, reference, case, 4, 1.0) < 1.2e-2


@pytest.mark.parametrize(("denoise", "measured"), [(0.875, 0.05693), (0.6, 0.03162), (0.3, 0.01774)])
def test_image_to_image_from_mid_window_differs_by_design(perflow, schedule, i2i, denoise, measured):
    """The official code starts there on the base model's noise curve, off its own path; this pack starts on the path.

    Its start z = sqrt(ab[T-1]) x0 + sqrt(1 - ab[T-1]) noise, put on the path's level: X = z / c(T).
    """
    from analytic_model import relative_error, sample, tensor

    reference, _ = i2i
    noise, x0 = (tensor(reference[name], reference["shape"]).float() for name in ("noise", "x0"))
    model = perflow("diff_eps")
    sampling = model.get_model_object("model_sampling")
    sigmas = schedule(model, 4, denoise=denoise)
    T = 1000 * denoise
    c = float(sampling.chord.coefficients(torch.tensor(T))[0])
    alpha_bar = float(sampling.base.alphas_cumprod[round(T) - 1])
    official = (alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise) / c
    ours = sample(model, sigmas, noise, x0)
    theirs = sample(model, sigmas, (official - x0) / sigmas[0], x0)
    assert relative_error(ours, theirs) == pytest.approx(measured, rel=0.01)


def test_whole_numbers_reach_the_unet(perflow):
    """Every level of the table is told to the UNet as its exact timestep, 1 to 1000."""
    sampling = perflow().get_model_object("model_sampling")
    assert torch.equal(sampling.timestep(sampling.sigmas[1:]), torch.arange(1, 1001).float())
    assert sampling.timestep(torch.tensor([0.03, 0.001])).tolist() == [1, 1]


@pytest.mark.parametrize("windows", [1, 4, 7])
def test_the_table_is_indexed_by_the_timestep(perflow, windows):
    """sigma(i) is sigmas[i], as in every discrete model of ComfyUI, up to the timestep 1000 that starts the path."""
    sampling = perflow(windows=windows).get_model_object("model_sampling")
    assert torch.allclose(sampling.sigma(torch.arange(1001)), sampling.sigmas, rtol=1e-6)
    assert sampling.sigma_max == sampling.sigmas[1000]
    assert sampling.timestep(sampling.sigma_max) == 1000
    assert sampling.timestep(sampling.sigma_min) == 1


def test_stock_model_is_indexed_by_the_timestep(analytic):
    """What is promised above is true of ComfyUI's own."""
    sampling = analytic.get_model_object("model_sampling")
    assert torch.allclose(sampling.sigma(torch.arange(1000)), sampling.sigmas, rtol=1e-6)
    assert torch.equal(sampling.timestep(sampling.sigmas), torch.arange(1000))


BY_TABLE, BY_TIMESTEP, BY_ENDS = {"sigmas"}, {"timestep", "sigma", "sigma_min", "sigma_max"}, {"sigma_min", "sigma_max"}
READS = {
    "simple": BY_TABLE,
    "ddim_uniform": BY_TABLE,
    "beta": BY_TABLE,
    "normal": BY_TIMESTEP,
    "sgm_uniform": BY_TIMESTEP,
    "karras": BY_ENDS,
    "exponential": BY_ENDS,
    "kl_optimal": BY_ENDS,
    "linear_quadratic": {"sigma_max"},
}


class Reads:
    """A model-sampling object, and which of its members were asked for."""

    def __init__(self, sampling):
        self.sampling, self.names = sampling, set()

    def __getattr__(self, name):
        self.names.add(name)
        return getattr(self.sampling, name)


@pytest.mark.parametrize("scheduler", READS)
def test_what_the_stock_schedulers_read(perflow, scheduler):
    """Table, timesteps or ends: from each a list falls from 1000 to the end, or, with ddim_uniform, from below it."""
    import comfy.samplers

    assert READS.keys() >= set(comfy.samplers.SCHEDULER_NAMES)
    reads = Reads(perflow().get_model_object("model_sampling"))
    sigmas = comfy.samplers.calculate_sigmas(reads, scheduler, 4)
    assert reads.names == READS[scheduler]
    if scheduler != "ddim_uniform":
        assert sigmas[0] == pytest.approx(float(reads.sampling.sigmas[1000]), rel=1e-6)
    assert sigmas[-1] == 0
    assert sigmas.diff().max() < 0


def test_sd_turbo_scheduler_asks_by_timestep(run, perflow):
    """999, 899, ...: the levels of these timesteps, as it gets them of every model."""
    sampling = perflow().get_model_object("model_sampling")
    (sigmas,) = run("SDTurboScheduler", model=perflow(), steps=3, denoise=1.0)
    assert torch.allclose(sigmas[:-1], sampling.sigmas[[999, 899, 799]], rtol=1e-6)
