"""Wrong use is told in one sentence."""

import pytest
import torch


@pytest.fixture
def model_of_type(t2i, comfyui):
    """The analytic UNet in a model that samples another way."""
    import comfy.model_base
    from analytic_model import CONFIGS, AnalyticUNet
    from comfy.model_patcher import ModelPatcher

    def make(name):
        config = CONFIGS[768]({"context_dim": 768, "dtype": torch.float32})
        kind = comfy.model_base.ModelType[name]
        model = comfy.model_base.BaseModel(config, kind, "cpu", unet_model=AnalyticUNet)
        return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))

    return make


@pytest.mark.parametrize("kind", ["FLOW", "FLUX", "EDM", "V_PREDICTION_EDM", "V_PREDICTION_CONTINUOUS"])
@pytest.mark.parametrize("node", ["PeRFlowModelSampling", "PeRFlowApplyDelta"])
def test_flow_and_edm_models(model_of_type, perflow, apply_delta, kind, node):
    model = model_of_type(kind)
    before = model.get_model_object("model_sampling")
    apply = apply_delta if node == "PeRFlowApplyDelta" else lambda model: perflow(model=model)
    with pytest.raises(
        ValueError, match=r"does not have the 1000-step noise table of Stable Diffusion, expected an SD"
    ):
        apply(model)
    assert model.get_model_object("model_sampling") is before


def test_table_of_another_length(run, analytic, perflow):
    lcm = run("ModelSamplingDiscrete", model=analytic, sampling="lcm", zsnr=False)[0]
    with pytest.raises(ValueError, match="without another model sampling node before this one"):
        perflow(model=lcm)


def test_another_noise_table(run, t2i, comfyui, perflow):
    from family_models import laid_out_model

    other = run("InstaFlowModelSampling", model=laid_out_model(t2i), family="rectified_diffusion", align_steps=True)[0]
    with pytest.raises(ValueError, match="without another model sampling node before this one"):
        perflow(model=other)


def test_v_prediction_models_are_a_base(model_of_type, perflow):
    assert perflow(model=model_of_type("V_PREDICTION")).get_model_object("model_sampling").chord.K == 4


def test_auto_needs_a_known_architecture(analytic, perflow):
    with pytest.raises(ValueError, match=r"auto cannot choose, expected SD1\.5, SD2\.x or SDXL: choose one of"):
        perflow("auto")


@pytest.mark.parametrize(
    ("node", "name"), [("PeRFlowWindowSchedule", "Window Schedule"), ("PeRFlowSchedulePlot", "Plot Window Schedule")]
)
def test_model_without_windows(run, analytic, node, name):
    inputs = {
        "PeRFlowWindowSchedule": {"steps": 4, "denoise": 1.0, "end": "zero", "steps_per_window": ""},
        "PeRFlowSchedulePlot": {"sigmas": torch.zeros(0)},
    }[node]
    with pytest.raises(ValueError, match=f"^{name} got a model without time windows .* connect Apply PeRFlow Delta"):
        run(node, model=analytic, **inputs)


def test_steps_per_window(perflow, schedule):
    model = perflow()
    with pytest.raises(ValueError, match="has 2 numbers"):
        schedule(model, steps_per_window="2,1")
    with pytest.raises(ValueError, match="expected whole numbers with commas"):
        schedule(model, steps_per_window="two,1,1,1")
    assert len(schedule(model, steps_per_window="2,1,1,1")) == 6  # the model works on


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("PeRFlowWindowSchedule", {"steps": 0}),
        ("PeRFlowWindowSchedule", {"denoise": 1.5}),
        ("PeRFlowApplyDelta", {"windows": -1}),
        ("PeRFlowApplyDelta", {"strength": 99.0}),
        ("PeRFlowModelSampling", {"windows": 0}),
    ],
)
def test_numbers_out_of_range_are_refused_by_the_schema(comfyui, node, inputs):
    schema = comfyui.nodes[node].GET_NODE_INFO_V1()
    for name, value in inputs.items():
        options = (schema["input"]["required"] | schema["input"].get("optional", {}))[name][1]
        assert not options["min"] <= value <= options["max"]


def test_every_problem_of_the_core_has_advice(comfyui, core):
    """The core says what is wrong; what to do about it is the nodes' to say."""
    advice, errors = comfyui.module("nodes.comfyui.advice"), core("errors")
    assert set(advice.ADVICE) == set(errors.Problem)
    for problem, text in [*advice.ADVICE.items(), (None, None)]:
        with pytest.raises(errors.UnusableError) as caught, advice.with_advice():
            raise errors.UnusableError("found, expected", problem)
        assert str(caught.value) == (f"found, expected: {text}." if text else "found, expected")
