"""Wrong use is told in one sentence."""

from functools import partial

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


OTHERS = ["EDM", "V_PREDICTION_EDM", "V_PREDICTION_CONTINUOUS", "STABLE_CASCADE", "FLOW_COSMOS", "IMG_TO_IMG_FLOW"]


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("node", ["PeRFlowModelSampling", "PeRFlowApplyDelta"])
def test_models_that_are_sampled_otherwise(model_of_type, perflow, apply_delta, kind, node):
    """IMG_TO_IMG_FLOW is of the class of flow models, and is none."""
    import comfy.model_base

    if not hasattr(comfy.model_base.ModelType, kind):
        pytest.skip(f"this ComfyUI has no {kind}")
    model = model_of_type(kind)
    before = model.get_model_object("model_sampling")
    apply = apply_delta if node == "PeRFlowApplyDelta" else lambda model: perflow(model=model)
    with pytest.raises(
        ValueError,
        match=r"(samples neither as Stable Diffusion does .+ nor as flow models do .+|has another noise table .+), "
        r"expected",
    ):
        apply(model)
    assert model.get_model_object("model_sampling") is before


@pytest.fixture
def with_table(run, t2i):
    """(kind of table) -> the analytic MODEL with SD1.5's layout and such a table."""
    import comfy.model_sampling as stock
    from family_models import laid_out_model

    class OtherBetas(stock.ModelSamplingDiscrete, stock.EPS):
        """As AnimateDiff's node for the schedule sqrt_linear."""

    def make(kind):
        model = laid_out_model(t2i)
        if kind == "rectified diffusion":
            return run("InstaFlowModelSampling", model=model, family="rectified_diffusion", align_steps=True)[0]
        if kind in ("lcm", "eps", "zsnr"):
            sampling = "eps" if kind == "zsnr" else kind
            return run("ModelSamplingDiscrete", model=model, sampling=sampling, zsnr=kind == "zsnr")[0]
        if kind == "zsnr of its own":  # as in a checkpoint with the key "ztsnr"
            model.model.model_config.sampling_settings["zsnr"] = True
            model.model.model_sampling = stock_sampling(model.model)
            return model
        changed = model.clone()
        sampling = OtherBetas(model.model.model_config)
        sampling._register_schedule(beta_schedule="sqrt_linear", linear_start=0.00085, linear_end=0.012)
        changed.add_object_patch("model_sampling", sampling)
        return changed

    return make


def stock_sampling(model):
    import comfy.model_base

    return comfy.model_base.model_sampling(model.model_config, comfy.model_base.ModelType.V_PREDICTION)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("lcm", "50 levels up to sigma 14.61"),
        ("zsnr", "1000 levels up to sigma 4519"),
        ("zsnr of its own", "1000 levels up to sigma 4519"),
        ("sqrt_linear", "1000 levels up to sigma 25.15"),
        ("rectified diffusion", "1000 levels up to sigma 25.15"),
    ],
)
@pytest.mark.parametrize("node", ["PeRFlowModelSampling", "PeRFlowTrainDelta", "InstaFlowModelSampling"])
def test_other_noise_tables(comfyui, run, with_table, node, kind, found):
    """Told by their numbers, whatever class they have and whether a node or the checkpoint brought them."""
    if (node, kind) == ("InstaFlowModelSampling", "rectified diffusion"):
        return  # its own, which it replaces
    call = {
        "PeRFlowModelSampling": partial(run, node, prediction_type="auto", windows=4, align_steps=True),
        "InstaFlowModelSampling": partial(run, node, family="rectified_flow", align_steps=True),
        "PeRFlowTrainDelta": comfyui.module("nodes.train_delta").teacher_of,
    }[node]
    model = with_table(kind)
    message = rf"another noise table \({found}\), expected Stable Diffusion's \(1000 up to"
    with pytest.raises(ValueError, match=message) as error:
        call(model=model)
    own = "v_prediction" if kind == "zsnr of its own" else "eps"  # with eps, the node's default, it would be noise
    assert f"put ModelSamplingDiscrete with {own} and zsnr off before this node." in str(error.value)


def test_the_same_table_from_another_node_is_a_base(run, with_table, perflow):
    """What decides is the table: zsnr off gives a checkpoint of zero terminal SNR the ordinary one."""
    assert perflow(model=with_table("eps")).get_model_object("model_sampling").base.predicts == "noise"
    off = run("ModelSamplingDiscrete", model=with_table("zsnr of its own"), sampling="v_prediction", zsnr=False)[0]
    assert perflow(model=off).get_model_object("model_sampling").base.predicts == "v"


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
