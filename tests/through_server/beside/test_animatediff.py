"""ComfyUI-AnimateDiff-Evolved: its sampler without a motion model gives each frame what it gets by itself."""

import pytest
from api_graph import SAME, relative_error

VARIABLE = "ANIMATEDIFF_EVOLVED_PATH"


@pytest.mark.parametrize("order", ["before", "after"])
def test_frames_in_windows_are_the_frames_by_themselves(accelerated, run, order):
    """Six frames in windows of four that overlap by two; Use Evolved Sampling before or after our node."""
    graph = accelerated.graph
    windows = graph.add("ADE_StandardUniformContextOptions", context_length=4, context_stride=1, context_overlap=2)
    evolving = {"beta_schedule": "use existing", "context_options": windows}
    delta = graph.prompt[accelerated.model[0]]["inputs"]
    if order == "before":
        base = dict(delta)
        evolved = graph.add("PeRFlowApplyDelta", **base)
        graph.prompt[evolved[0]]["inputs"]["model"] = graph.add(
            "ADE_UseEvolvedSampling", model=base["model"], **evolving
        )
    else:
        evolved = graph.add("ADE_UseEvolvedSampling", model=accelerated.model, **evolving)
    fox = accelerated.text("a red fox")
    frames = accelerated.empty(6)
    found, expected = run(
        accelerated.ksampler(fox, 4, frames, model=evolved), accelerated.ksampler(fox, 4, frames, scheduler="karras")
    )
    assert relative_error(found, expected) < SAME
