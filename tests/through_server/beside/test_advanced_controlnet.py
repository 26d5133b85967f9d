"""ComfyUI-Advanced-ControlNet: a ControlNet that is active in a part of the way, by its ends and by keyframes."""

import pytest
from api_graph import SAME, relative_error

VARIABLE = "ADVANCED_CONTROLNET_PATH"
FILE = "control_v11p_sd15_canny_fp16.safetensors"
WORDS = "a red fox"
# Parts of the way, all steps, and which of them have the ControlNet, as on the base with as many steps.
RANGES = [(0.0, 1.0, 4, 0, 4), (0.0, 0.25, 4, 0, 1), (0.0, 0.5, 4, 0, 2), (0.0, 0.75, 4, 0, 3), (0.3, 0.7, 8, 3, 6)]


@pytest.fixture
def in_steps(accelerated):
    """(all steps, the first with the ControlNet, the first without it again) -> stock nodes, one part after another."""

    def sample(steps, start, end):
        graph, plain = accelerated.graph, {"positive": accelerated.text(WORDS), "negative": accelerated.text("blurry")}
        net = graph.add("ControlNetLoader", control_net_name=FILE)
        whole = {"image": accelerated.photo(), "strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
        controlled = graph.add("ControlNetApplyAdvanced", control_net=net, **plain, **whole)
        active = {"positive": controlled, "negative": graph.output(controlled, 1)}
        parts = [(start, plain), (end - start, active), (steps - end, plain)]
        return accelerated.in_parts(steps, *(part for part in parts if part[0]))

    return sample


@pytest.fixture
def applied(accelerated):
    """Its own loader and node -> KSampler's LATENT."""

    def sample(steps, keyframes=None, **part):
        graph = accelerated.graph
        net = graph.add("ACN_ControlNetLoaderAdvanced", cnet=FILE)
        prompts = {"positive": accelerated.text(WORDS), "negative": accelerated.text("blurry")}
        whole = {"image": accelerated.photo(), "strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
        inputs = prompts | whole | part
        if keyframes:
            inputs["timestep_kf"] = keyframes
        both = graph.add("ACN_AdvancedControlNetApply_v2", control_net=net, **inputs)
        return accelerated.ksampler(both, steps, negative=graph.output(both, 1))

    return sample


@pytest.mark.parametrize(("start", "end", "steps", "first", "last"), RANGES)
def test_a_range_of_the_way(run, in_steps, applied, start, end, steps, first, last):
    found, expected, one_more = run(
        applied(steps, start_percent=start, end_percent=end),
        in_steps(steps, first, last),
        in_steps(steps, first, last + 1 if last < steps else last - 1),
    )
    assert relative_error(found, expected) < SAME
    assert relative_error(one_more, expected) > 1e-2


@pytest.mark.parametrize(("part", "steps", "first"), [(0.25, 4, 1), (0.5, 4, 2), (0.75, 4, 3), (0.3, 6, 3)])
def test_keyframes_take_effect_at_their_step(accelerated, run, in_steps, applied, part, steps, first):
    on = accelerated.graph.add("TimestepKeyframe", start_percent=0.0, strength=1.0)
    off = accelerated.graph.add("TimestepKeyframe", start_percent=part, strength=0.0, prev_timestep_kf=on)
    found, expected, one_more = run(
        applied(steps, keyframes=off), in_steps(steps, 0, first), in_steps(steps, 0, first + 1)
    )
    assert relative_error(found, expected) < SAME
    assert relative_error(one_more, expected) > 1e-2
