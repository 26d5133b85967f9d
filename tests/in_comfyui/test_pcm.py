"""Phase Schedule (PCM): the official numbers of SD1.5, SDXL, SD3 and Rectified Diffusion, through stock samplers."""

import re
from pathlib import Path

import pytest
import torch

TOLERANCE = 5e-6
DEFAULTS = {"steps": 4, "grid": "trailing", "phases": 4, "denoise": 1.0, "end": "zero", "pcm_timesteps": 50}
REFERENCE_END = 0.999575  # what the official latent is of the result, as the node says


@pytest.fixture(scope="module")
def pcm(golden):
    return golden("pcm_sd15_sdxl")


@pytest.fixture(scope="module")
def sd3(golden):
    return golden("pcm_sd3")


@pytest.fixture
def sd15(comfyui, pcm):
    from family_models import laid_out_model

    return laid_out_model(pcm)


@pytest.fixture
def phases(run):
    """SIGMAS of the node."""

    def make(model, steps=4, **inputs):
        return run("PCMPhaseSchedule", model=model, **(DEFAULTS | {"steps": steps} | inputs))[0]

    return make


@pytest.fixture
def text(comfyui):
    """The lines that the node says on itself."""

    def lines(model, **inputs):
        output = comfyui.nodes["PCMPhaseSchedule"].execute(model=model, **(DEFAULTS | inputs))
        return output.ui["text"][0].splitlines()

    return lines


@pytest.fixture
def lcm(run):
    """The model that the stock ModelSamplingDiscrete sets to lcm."""

    def patch(model):
        return run("ModelSamplingDiscrete", model=model, sampling="lcm", zsnr=False)[0]

    return patch


def assert_official(model, sigmas, reference, case, sampler="euler", factor=1.0, timesteps=None):
    """The official final latent, and their timesteps at the UNet."""
    from analytic_model import relative_error, sample, tensor
    from family_models import start, told

    told(model)
    found = factor * sample(model, sigmas, start(reference), cfg=case["cfg"], sampler=sampler)
    assert told(model) == (case["timesteps"] if timesteps is None else timesteps)
    assert relative_error(found, tensor(case["final"], reference["shape"])) < TOLERANCE


def stochastic(reference, case):
    """The stock sampler lcm, with the noises of a reference case."""
    import comfy.samplers
    from analytic_model import tensor

    noises = iter(tensor(noise, reference["shape"]).float() for noise in case["noises"])
    return comfy.samplers.ksampler("lcm", {"noise_sampler": lambda sigma, below: next(noises)})


@pytest.mark.parametrize(("grid", "name"), [("trailing", "ddim_trailing"), ("tcd", "tcd_eta0")])
def test_deterministic(sd15, phases, pcm, grid, name):
    for case in pcm[name]:
        sigmas = phases(sd15, case["steps"], grid=grid, end="reference")
        assert_official(sd15, sigmas, pcm, case, factor=REFERENCE_END)


@pytest.mark.parametrize("i", range(3))
def test_training_edges(comfyui, phases, pcm, i):
    """The fine grid of the training is the family's: 50 points for SD1.5, 40 for SDXL."""
    from family_models import laid_out_model

    case = pcm["training_phase_edges"][i]
    model = laid_out_model(pcm, {50: 768, 40: 2048}[case["fine_grid"]])
    sigmas = phases(model, case["phases"], grid="training_edges", phases=case["phases"], end="reference")
    assert_official(model, sigmas, pcm, case, factor=REFERENCE_END)


@pytest.mark.parametrize("set_to_lcm", [True, False])
@pytest.mark.parametrize("i", range(2))
def test_stochastic(sd15, phases, lcm, pcm, i, set_to_lcm):
    """With the distilled table that ModelSamplingDiscrete sets, or without: this grid is on both."""
    case = pcm["lcm_like"][i]
    model = lcm(sd15) if set_to_lcm else sd15
    sigmas = phases(model, case["steps"], grid="tcd", end="reference" if set_to_lcm else "zero")
    assert sigmas[-1] == 0
    assert_official(model, sigmas, pcm, case, stochastic(pcm, case))


def test_stochastic_with_a_plain_ksampler_is_right_too(run, sd15, lcm, phases):
    """ModelSamplingDiscrete on lcm, KSampler with lcm and simple: no schedule needed."""
    import comfy.samplers

    model = lcm(sd15)
    for steps in (1, 2, 4, 6, 8):
        stock = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
        assert torch.allclose(phases(model, steps, grid="tcd"), stock, rtol=1e-6)


@pytest.mark.parametrize("i", range(5))
def test_sd3(comfyui, run, phases, sd3, i):
    """The model's own shift of 3, or ModelSamplingSD3's of 1."""
    from family_models import sd3_model

    case = sd3["cases"][i]
    model = sd3_model(sd3)
    if case["shift"] != 3:
        model = run("ModelSamplingSD3", model=model, shift=float(case["shift"]))[0]
    sigmas = phases(model, case["steps"], pcm_timesteps=case["pcm_timesteps"])
    assert sigmas.tolist() == pytest.approx(case["sigmas"], abs=1e-7)
    sampler = "euler" if case["kind"] == "det" else stochastic(sd3, case)
    assert_official(model, sigmas, sd3, case, sampler, timesteps=pytest.approx(case["timesteps"], rel=2.4e-7))


@pytest.mark.parametrize("i", range(2))
def test_rectified_diffusion(comfyui, run, phases, golden, i):
    """rd and cm: the trailing grid on Model Sampling InstaFlow's table; align_steps finds nothing to change."""
    from family_models import laid_out_model

    reference = golden("rectified_diffusion")
    case = reference["cases"][i]
    inputs = {"family": "rectified_diffusion", "align_steps": True}
    model = run("InstaFlowModelSampling", model=laid_out_model(reference), **inputs)[0]
    sigmas = phases(model, case["steps"], end="reference")
    assert_official(model, sigmas, reference, case)  # the factor of the reference end is in its sampling
    inputs = {"steps": 4, "grid": "trailing", "phases": 4, "denoise": 1.0, "end": "reference", "pcm_timesteps": 50}
    output = comfyui.nodes["PCMPhaseSchedule"].execute(model=model, **inputs)
    assert "Latent Multiply" not in output.ui["text"][0]


def test_zero_goes_on_to_the_picture_itself(sd15, phases, pcm):
    """The lists differ in the last level only. On this model the noise left at the official end is up to 2 %."""
    from analytic_model import relative_error, sample, tensor
    from family_models import start

    for case in pcm["ddim_trailing"]:
        zero, reference = phases(sd15, case["steps"]), phases(sd15, case["steps"], end="reference")
        assert torch.equal(zero[:-1], reference[:-1])
        assert (float(zero[-1]), float(reference[-1])) == (0.0, pytest.approx(0.0291672, abs=1e-6))
        found = sample(sd15, zero, start(pcm), cfg=case["cfg"])
        assert 4e-3 < relative_error(found, tensor(case["final"], pcm["shape"])) < 2.2e-2


def test_what_zero_differs_by_as_the_method_page_says(run, perflow, schedule, noise, sd15, phases, t2i, pcm, golden):
    """Over every reference case of the systems that have both ends; the other table rows have one end."""
    from analytic_model import relative_error, sample, tensor
    from family_models import laid_out_model, start

    def off(model, sigmas, reference, case, begin):
        return relative_error(sample(model, sigmas, begin, cfg=case["cfg"]), tensor(case["final"], reference["shape"]))

    found = []
    for case in t2i["cases"]:
        if 1000 % case["K"] == 0 and case["steps_requested"] >= case["K"]:
            model = perflow(case["prediction_type"], case["K"])
            found.append(off(model, schedule(model, case["steps_requested"]), t2i, case, noise))
    for grid, name in (("trailing", "ddim_trailing"), ("tcd", "tcd_eta0")):
        found += [off(sd15, phases(sd15, case["steps"], grid=grid), pcm, case, start(pcm)) for case in pcm[name]]
    rectified = golden("rectified_diffusion")
    inputs = {"family": "rectified_diffusion", "align_steps": True}
    model = run("InstaFlowModelSampling", model=laid_out_model(rectified), **inputs)[0]
    for i in range(2):
        case = rectified["cases"][i]
        found.append(off(model, phases(model, case["steps"]), rectified, case, start(rectified)))
    text = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    said = re.search(r"differs from `reference` by (\S+) to (\S+) in the reference cases", text)
    assert said
    assert [float(f"{bound:.1e}") for bound in (min(found), max(found))] == [float(number) for number in said.groups()]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"denoise": 0.5}, [499, 374, 249, 124]),
        ({"steps": 2, "denoise": 0.5}, [499, 249]),
        ({"steps": 2, "denoise": 0.5, "grid": "training_edges"}, [499, 239]),
        ({"steps": 2, "denoise": 0.5, "grid": "tcd"}, [499, 259]),
        ({"steps": 6, "grid": "training_edges"}, [999, 869, 739, 619, 499, 239]),
        ({"steps": 2, "grid": "training_edges"}, [999, 499]),
        ({"steps": 1}, [999]),
    ],
)
def test_timesteps(sd15, phases, inputs, expected):
    from analytic_model import sample
    from family_models import told

    sample(sd15, phases(sd15, **inputs), torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2))
    assert told(sd15) == expected


def test_denoise_of_ksampler_is_the_same(run, sd15, phases):
    """KSampler with simple stands on the trailing grid where the steps divide 1000, below 1 too."""
    stock = run("BasicScheduler", model=sd15, scheduler="simple", steps=4, denoise=0.5)[0]
    assert torch.allclose(phases(sd15, 4, denoise=0.5), stock, rtol=1e-6)


def test_image_to_image_of_sd3(comfyui, phases, sd3):
    from family_models import sd3_model

    assert phases(sd3_model(sd3), 2, denoise=0.5).tolist() == pytest.approx([0.75, 0.5131579, 0.0], abs=1e-7)


def test_nothing_to_do(sd15, comfyui, phases, text, sd3):
    from family_models import sd3_model

    for model in (sd15, sd3_model(sd3)):
        assert phases(model, denoise=0.0).shape == (0,)
        assert text(model, denoise=0.0) == ["No steps: with denoise 0 the latent stays as it is."]


def test_the_sdxl_refiner_schedule_is_stock(run, comfyui, golden):
    """15 steps at denoise 0.3 are the last 15 of diffusers' 50 with leading spacing, 281 261 ... 1."""
    from analytic_model import sample
    from family_models import laid_out_model, told

    grids = golden("schedules_misc")
    begin = grids["sdxl_refiner_strength0_3_start"]
    model = laid_out_model(golden("pcm_sd15_sdxl"), 1280)
    sigmas = run("BasicScheduler", model=model, scheduler="ddim_uniform", steps=15, denoise=0.3)[0]
    assert sigmas.tolist() == pytest.approx(grids["sdxl_refiner_euler50_sigmas"][begin:], rel=5e-6)
    sample(model, sigmas, torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2))
    assert told(model) == grids["sdxl_refiner_euler50_timesteps"][begin:]


def test_timesteps_on_the_help_page(comfyui, run, pcm, sd3, text):
    """As the node itself shows them."""
    from family_models import laid_out_model, sd3_model

    models = {"SD1.5": laid_out_model(pcm), "SDXL": laid_out_model(pcm, 2048), "SD3, shift 3": sd3_model(sd3)}
    models["SD3, shift 1"] = run("ModelSamplingSD3", model=sd3_model(sd3), shift=1.0)[0]
    page = (Path(__file__).parents[2] / "web" / "docs" / "PCMPhaseSchedule.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (SD[^|]*) \| (\w+) \| ([\d .]+) \|$", page, re.M)
    assert len(rows) == 6
    for model, grid, timesteps in rows:
        assert text(models[model], grid=grid.replace("any", "trailing"))[0] == timesteps


class TestText:
    SD15 = "For pcm_sd15_smallcfg_4step_converted (CFG 1 to 2) or pcm_sd15_normalcfg_4step_converted (CFG 2.5 to 3.5)"

    def test_files(self, sd15, text):
        assert text(sd15) == ["999 749 499 249", f"{self.SD15}, sampler euler."]

    def test_sdxl(self, comfyui, pcm, text):
        from family_models import laid_out_model

        files = "pcm_sdxl_smallcfg_8step_converted (CFG 1 to 2) or pcm_sdxl_normalcfg_8step_converted (CFG 3 to 6)"
        assert text(laid_out_model(pcm, 2048), steps=8)[1:] == [f"For {files}, sampler euler."]

    def test_no_file_for_that_many(self, sd15, text):
        expected = (
            "No PCM LoRA is made for 5 steps: smallcfg LoRAs are for 2, 4, 8 or 16, normalcfg LoRAs for 4, 8 or 16."
        )
        assert text(sd15, steps=5) == ["999 799 599 399 199", expected]

    def test_the_grid_below_denoise_1_counts(self, sd15, text):
        assert text(sd15, steps=2, denoise=0.5) == ["499 249", f"{self.SD15}, sampler euler."]

    def test_tcd_is_for_lcm_like_ones_too(self, sd15, lcm, text):
        expected = "or pcm_sd15_lcmlike_lora_converted, sampler lcm, CFG 1."
        assert text(sd15, grid="tcd")[1:] == [f"{self.SD15}, sampler euler.", expected.replace("or", "Or for", 1)]
        assert text(lcm(sd15), grid="tcd") == ["999 759 499 259", expected.replace("or", "For", 1)]

    def test_a_grid_that_lcms_table_does_not_have(self, sd15, lcm, text):
        said, warning, _ = text(lcm(sd15))
        assert said == "999 739 499 239"  # what the UNet is told
        assert warning.startswith("These are not exactly 999 749 499 249: a model set to lcm has only")

    def test_steps_and_phases(self, sd15, text):
        shared = text(sd15, steps=6, grid="training_edges")
        assert shared[1] == "6 steps do not divide by 4 phases, so the phases get 2 2 1 1."
        assert shared[2].startswith(self.SD15)  # the LoRA has as many phases as its name says, whatever the steps
        assert text(sd15, steps=1, grid="training_edges")[1].startswith("1 step for 4 phases: some edges are left out")
        assert len(text(sd15, steps=8, grid="training_edges")) == 2
        assert text(sd15, phases=8)[-1] == "This grid ignores phases."

    def test_reference_end(self, sd15, lcm, text):
        expected = f"The official latent is the result times {REFERENCE_END} (Latent Multiply)."
        assert text(sd15, end="reference")[-1] == expected
        assert text(lcm(sd15), grid="tcd", end="reference")[-1].startswith("A model set to lcm ignores end reference")

    def test_more_steps_than_the_grid_has(self, sd15, text, phases):
        assert len(phases(sd15, 60, grid="tcd")) == 51
        assert text(sd15, steps=60, grid="tcd")[1] == "50 steps instead of 60: the grid has no more points there."

    @pytest.mark.parametrize(
        ("shift", "steps", "expected"),
        [
            (1.0, 2, "Shift 1. For pcm_deterministic_2step_shift1, sampler euler; CFG 1.2."),
            (1.0, 4, "Shift 1. For pcm_deterministic_4step_shift1, sampler euler; CFG 1.2."),
            (
                3.0,
                4,
                "Shift 3. For pcm_deterministic_4step_shift3, sampler euler, or pcm_stochastic_shift3, sampler lcm;",
            ),
            (3.0, 6, "No PCM LoRA is made for 6 steps at shift 3."),
            (2.0, 4, "No PCM LoRA has shift 2: set 1 or 3 with ModelSamplingSD3."),
        ],
    )
    def test_sd3(self, comfyui, run, sd3, text, shift, steps, expected):
        from family_models import sd3_model

        model = run("ModelSamplingSD3", model=sd3_model(sd3), shift=shift)[0]
        timesteps, files, last = text(model, steps=steps)
        assert timesteps.startswith("1000 ")
        assert files.startswith(expected)
        assert last == "This model ignores grid, phases and end."

    def test_inputs_of_sd3_on_others(self, sd15, text):
        assert text(sd15, pcm_timesteps=100)[-1] == "Only SD3 uses pcm_timesteps."

    def test_models_without_a_pcm_lora(self, comfyui, pcm, text):
        from family_models import laid_out_model

        for width, kind in ((1024, "EPS"), (1024, "V_PREDICTION"), (768, "FLOW")):
            assert "No PCM LoRA is known for this model (BaseModel)." in text(laid_out_model(pcm, width, kind))

    def test_rectified_diffusion(self, comfyui, run, pcm, text, sd15):
        model = run("InstaFlowModelSampling", model=sd15, family="rectified_diffusion", align_steps=True)[0]
        assert text(model)[1].startswith("For rd (1, 2, 4, 8, 16 or 25 steps, CFG 1.5) and cm (1 or 2 steps, CFG 1)")
        assert text(model, grid="tcd")[1].endswith("restores it unless its align_steps is off.")


class TestWrongUse:
    def test_perflow(self, perflow, phases):
        with pytest.raises(
            ValueError, match=r"^Phase Schedule \(PCM\) got PeRFlow's sampling, expected [^\n]+: use Win"
        ):
            phases(perflow())

    def test_instaflow(self, run, sd15, phases):
        model = run("InstaFlowModelSampling", model=sd15, family="rectified_flow", align_steps=True)[0]
        with pytest.raises(ValueError, match=r"got InstaFlow's sampling, expected .*: use a plain KSampler for it"):
            phases(model)

    @pytest.mark.parametrize("kind", ["FLUX", "EDM", "V_PREDICTION_EDM", "V_PREDICTION_CONTINUOUS", "STABLE_CASCADE"])
    def test_models_of_another_kind(self, comfyui, pcm, phases, kind):
        from family_models import laid_out_model

        with pytest.raises(
            ValueError, match=r"got a BaseModel model \(sampling \w+ \+ \w+\), expected an SD1\.5, SDXL"
        ):
            phases(laid_out_model(pcm, kind=kind))
