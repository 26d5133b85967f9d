"""What is said about a run: steps across a bend, a sampling that another node replaced, a base of another kind."""

import pytest
import torch

ACROSS = "a window edge, so the picture is rougher"


@pytest.fixture
def remarks(caplog):
    """What the log says of a run; the node that gave the MODEL shows the same."""

    def of(call):
        caplog.clear()
        with caplog.at_level("INFO"):
            call()
        return [message for message in caplog.messages if message.startswith(("PeRFlow", "InstaFlow"))]

    return of


@pytest.fixture
def sample(noise):
    from analytic_model import sample

    return lambda model, sigmas, **inputs: sample(model, sigmas, inputs.pop("noise", noise), **inputs)


@pytest.fixture
def listed():
    import comfy.samplers

    def make(model, scheduler, steps):
        return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)

    return make


@pytest.mark.parametrize(
    ("scheduler", "steps", "crossing"), [("karras", 4, 2), ("simple", 4, 0), ("simple", 8, 0), ("simple", 6, 2)]
)
def test_lists_of_one_step(perflow, remarks, sample, listed, noise, scheduler, steps, crossing):
    """RegionalSampler and KSamplerAdvanced from n to n + 1 hand over each step by itself."""
    model = perflow()
    sigmas = listed(model, scheduler, steps)

    def one_by_one():
        latent = None
        for i in range(steps):
            more = {"noise": noise if i == 0 else torch.zeros_like(noise), "latent": latent}
            latent = sample(model, sigmas[i : i + 2], **more)

    advice = ". If the sampler takes the path in parts, use the scheduler simple and a multiple of 4 steps"
    lines = [line for line in remarks(one_by_one) if "window edge" in line]
    assert len(lines) == crossing
    assert all(line.endswith(f"1 of 1 steps crosses {ACROSS}{advice}") for line in lines)


def test_fewer_steps_than_windows(run, perflow, remarks, sample, listed, schedule):
    model = perflow()
    line = "PeRFlow: {}Take 4 steps or more: 1 of 3 steps crosses " + ACROSS
    assert remarks(lambda: sample(model, schedule(model, 3))) == [line.format("")]
    (found,) = remarks(lambda: sample(model, listed(model, "karras", 3)))
    assert found == line.format("steps aligned to the windows: 1000 | 750 | 500. ")
    sampler = run("PeRFlowSampler", solver="euler")[0]  # divides the step
    assert remarks(lambda: sample(model, schedule(model, 3), sampler=sampler)) == []


def test_rising_lists(run, perflow, remarks, sample, listed, schedule):
    """A restart sampler's list goes down, up and down; the way back to noise on the grid crosses nothing."""
    model = perflow()
    karras = listed(model, "karras", 6)
    restarts = torch.cat([karras[:5], karras[2:]])
    assert remarks(lambda: sample(model, restarts)) == [
        f"PeRFlow: 6 of 9 steps cross {ACROSS}. A list that rises keeps its steps"
    ]
    (flipped,) = run("FlipSigmas", sigmas=schedule(model, 8))
    assert remarks(lambda: sample(model, flipped)) == []
    (flipped,) = run("FlipSigmas", sigmas=karras)
    assert remarks(lambda: sample(model, flipped, noise=torch.zeros(1, 4, 4, 4))) == [
        f"PeRFlow: 3 of 6 steps cross {ACROSS}. A list that rises keeps its steps"
    ]


def test_steps_left_where_the_scheduler_has_them(perflow, remarks, sample, listed):
    model = perflow(align_steps=False)
    assert remarks(lambda: sample(model, listed(model, "simple", 4))) == []
    (line,) = remarks(lambda: sample(model, listed(model, "karras", 6)))
    assert line == f"PeRFlow: 3 of 6 steps cross {ACROSS}"


OTHERWISE = "PeRFlow: Take euler or PeRFlow Sampler: this sampler steps otherwise in {} windows"


@pytest.mark.parametrize(
    ("sampler", "steps", "count"),
    [("euler", 4, None), ("euler", 8, None), ("ddim", 8, None)]
    # They begin to look back in the second window, or leave euler's step in the first.
    + [("dpmpp_2m", 4, 2), ("res_multistep", 8, 3), ("uni_pc", 8, 4), ("heun", 4, 3)]
    + [("euler_ancestral", 8, 4), ("lms", 4, 2)],
)
def test_samplers_that_look_across_an_edge(perflow, remarks, sample, listed, sampler, steps, count):
    model = perflow()
    said = remarks(lambda: sample(model, listed(model, "simple", steps), sampler=sampler, seed=1))
    lines = [line for line in said if "steps otherwise" in line]
    assert lines == ([] if count is None else [OTHERWISE.format(count)])


def test_a_callback_still_gets_every_step(perflow, sample, listed, noise):
    model, seen = perflow(), []
    sample(model, listed(model, "simple", 6), callback=lambda *given: seen.append(given))
    assert [(step, total) for step, _, _, total in seen] == [(i, 6) for i in range(6)]
    assert all(x0.shape == x.shape == noise.shape for _, x0, x, _ in seen)


def test_guidance_on_what_was_guided_in_training(perflow, remarks, sample, listed):
    model = perflow()
    model.set_attachments("perflow_guidance", 2.5)
    for cfg, said in ((1.0, False), (3.0, False), (7.5, True)):
        lines = remarks(lambda cfg=cfg: sample(model, listed(model, "simple", 4), cfg=cfg))
        assert any("CFG 7.5 is much here: the delta has learned CFG 2.5 already" in line for line in lines) == said


@pytest.fixture
def shown(comfyui, monkeypatch):
    """(node id) -> what it shows when it is node 7 of a graph."""
    from server import PromptServer

    texts = []
    monkeypatch.setattr(PromptServer.instance, "client_id", "a page")
    monkeypatch.setattr(PromptServer.instance, "send_progress_text", lambda text, node, page: texts.append(text))

    def on(node):
        monkeypatch.setattr(comfyui.nodes[node], "hidden", type("Hidden", (), {"unique_id": "7"}))
        return texts

    return on


OTHERS = {
    "ModelSamplingDiscrete": [{"sampling": kind, "zsnr": False} for kind in ("eps", "v_prediction", "lcm")],
    "ModelSamplingContinuousEDM": [{"sampling": "eps", "sigma_max": 120.0, "sigma_min": 0.002}],
}


@pytest.mark.parametrize("align_steps", [True, False])
@pytest.mark.parametrize("ours", ["PeRFlow", "InstaFlow"])
@pytest.mark.parametrize(("other", "inputs"), [(name, i) for name, all_of in OTHERS.items() for i in all_of])
def test_another_model_sampling_node_after_ours(
    run, t2i, remarks, shown, sample, listed, ours, other, inputs, align_steps
):
    from family_models import laid_out_model

    node = f"{ours}ModelSampling"
    texts = shown(node)
    own = {"family": "rectified_flow"} if ours == "InstaFlow" else {"prediction_type": "diff_eps", "windows": 4}
    (model,) = run(node, model=laid_out_model(t2i), align_steps=align_steps, **own)
    (changed,) = run(other, model=model, **inputs)
    (line,) = remarks(lambda: sample(changed, listed(changed, "simple", 4)))
    assert line.startswith(f"{ours}: {ours}'s sampling is switched off, so the picture will be wrong")
    assert line.endswith("Take that node away")
    assert line.split(": ", 1)[1] in texts[-1]
    assert remarks(lambda: sample(model, listed(model, "simple", 4))) == []
    assert "switched off" not in texts[-1]


@pytest.mark.parametrize(
    ("width", "kind", "auto"),
    [(768, "V_PREDICTION", "diff_eps"), (2048, "V_PREDICTION", "ddim_eps"), (1024, "EPS", "velocity")]
    + [(1024, "V_PREDICTION", None), (768, "EPS", None)],
)
def test_a_base_that_predicts_something_else(run, t2i, shown, width, kind, auto):
    """SDXL and SD1.5 that predict v, SD2.x that predicts noise: auto is what the published weights are."""
    from family_models import laid_out_model

    texts = shown("PeRFlowModelSampling")
    model = laid_out_model(t2i, width, kind)
    run("PeRFlowModelSampling", model=model, prediction_type="auto", windows=4, align_steps=True)
    predicts = "v" if kind == "V_PREDICTION" else "noise"
    assert (f"This model predicts {predicts}, and auto chose {auto}" in texts[-1]) == (auto is not None)
    assert ("This model predicts" in texts[-1]) == (auto is not None)
    wanted = "velocity" if predicts == "v" else "ddim_eps"
    run("PeRFlowModelSampling", model=model, prediction_type=wanted, windows=4, align_steps=True)
    assert "predicts" not in texts[-1]


def test_a_delta_says_what_its_base_predicts(comfyui, run, small_unet, delta_file, shown):
    """Its own word counts, then its parameterization's; the base stays known below a second delta."""
    from safetensors.torch import load_file, save_file

    own = delta_file.with_name("of-v.safetensors")
    save_file(load_file(delta_file), own, {"prediction_type": "ddim_eps", "windows": "4", "base_prediction": "v"})
    texts = shown("PeRFlowApplyDelta")
    of_v = run("ModelSamplingDiscrete", model=small_unet, sampling="v_prediction", zsnr=False)[0]
    inputs = {"strength": 1.0, "prediction_type": "auto", "windows": 0, "align_steps": True}
    said = "This model predicts {}, but the PeRFlow weights were made for models that predict {}"
    for model, name, expected in (
        (small_unet, delta_file.name, None),
        (of_v, own.name, None),
        (of_v, delta_file.name, said.format("v", "noise")),
        (small_unet, own.name, said.format("noise", "v")),
    ):
        (accelerated,) = run("PeRFlowApplyDelta", model=model, delta_name=name, **inputs)
        assert ("This model predicts" in texts[-1]) == (expected is not None)
        assert (expected or "") in texts[-1]
        run("PeRFlowApplyDelta", model=accelerated, delta_name=name, **inputs)
        assert ("This model predicts" in texts[-1]) == (expected is not None)
