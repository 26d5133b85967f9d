"""RES4LYF: ClownsharKSampler's euler without its additions is stock euler, on the steps that the model aligns."""

import pytest
from api_graph import SAME, relative_error

VARIABLE = "RES4LYF_PATH"


@pytest.fixture
def clownshark(accelerated):
    """Its node with the noise that ComfyUI's own samplers start from, and nothing added in a step."""
    graph = accelerated.graph

    def sample(positive, **inputs):
        same_noise = graph.add("ClownOptions_ExtraOptions_Beta", extra_options="bypass_noise_norm")
        plain = {"eta": 0.0, "sampler_mode": "standard", "bongmath": False, "steps_to_run": -1, "denoise": 1.0}
        sampling = accelerated.SAMPLING | {"sampler_name": "linear/euler", "seed": accelerated.SEED}
        links = {"model": accelerated.model, "positive": positive, "negative": accelerated.text("blurry")}
        links |= {"latent_image": accelerated.empty(), "options_group.options0": same_noise}
        return graph.add("ClownsharKSampler_Beta", **(links | plain | sampling | inputs))

    return sample


@pytest.mark.parametrize(("scheduler", "steps"), [("simple", 4), ("karras", 6), ("beta57", 8)])
def test_euler_is_stock_euler(accelerated, run, clownshark, scheduler, steps):
    """With a delta that predicts noise; beta57 is a scheduler of RES4LYF's own."""
    accelerated.graph.prompt[accelerated.model[0]]["inputs"]["prediction_type"] = "ddim_eps"
    positive = accelerated.text("a red fox")
    found, expected = run(
        clownshark(positive, scheduler=scheduler, steps=steps),
        accelerated.ksampler(positive, steps, scheduler=scheduler),
    )
    assert relative_error(found, expected) < SAME


@pytest.mark.parametrize(("steps", "first"), [(4, 3), (8, 5)])
def test_its_steps_are_stock_eulers_but_for_the_end(accelerated, run, clownshark, steps, first):
    """With diff_eps. At the end it takes its own noise for the model's answer, whatever the model predicts.

    That is its shortcut from the smallest sigma to 0, which another prediction changes by 0.5 % at 4 steps here.
    """
    positive = accelerated.text("a red fox")
    begun = {"positive": positive}
    found, expected, whole, stock = run(
        clownshark(positive, scheduler="simple", steps=steps, steps_to_run=first),
        accelerated.in_parts(steps, (first, begun)),
        clownshark(positive, scheduler="simple", steps=steps),
        accelerated.ksampler(positive, steps),
    )
    assert relative_error(found, expected) < SAME
    assert relative_error(whole, stock) < 2e-2
