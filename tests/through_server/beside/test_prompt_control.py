"""comfyui-prompt-control: prompts and LoRAs that change at a part of the way, each active in its own steps."""

import pytest
from api_graph import SAME, relative_error

VARIABLE = "PROMPT_CONTROL_PATH"
BEFORE, AFTER = "a red fox in the snow", "a blue whale in the snow"

# The part of the way, all steps, and how many of them the base would take before it: those above 1 + 999 (1 - p).
# It takes parts of the way by hundredths.
CUTS = [(0.25, 4, 1), (0.5, 4, 2), (0.75, 4, 3), (0.6, 4, 3), (0.3, 6, 3), (0.5, 8, 4), (0.37, 8, 3)]


@pytest.mark.parametrize(("part", "steps", "first"), CUTS)
def test_a_changed_word_takes_effect_at_its_step(accelerated, run, part, steps, first):
    clip = accelerated.clip
    scheduled = accelerated.graph.add("PCLazyTextEncode", clip=clip, text=f"a [red fox:blue whale:{part}] in the snow")
    before, after = accelerated.text(BEFORE), accelerated.text(AFTER)
    rest = steps - first
    found, expected, one_more, one_less = run(
        accelerated.ksampler(scheduled, steps),
        accelerated.in_parts(steps, (first, {"positive": before}), (rest, {"positive": after})),
        accelerated.in_parts(steps, (first + 1, {"positive": before}), (rest - 1, {"positive": after})),
        accelerated.in_parts(steps, (first - 1, {"positive": before}), (rest + 1, {"positive": after})),
    )
    assert relative_error(found, expected) < SAME
    assert min(relative_error(one_more, expected), relative_error(one_less, expected)) > 1e-2


@pytest.mark.parametrize(("part", "steps", "first"), [(0.25, 4, 1), (0.5, 4, 2), (0.37, 8, 3)])
def test_a_lora_ends_at_its_step(accelerated, run, part, steps, first):
    graph, text = accelerated.graph, f"{BEFORE} [<lora:add_detail:0.8>::{part}]"
    scheduled = graph.add("PCLazyLoraLoader", model=accelerated.model, clip=accelerated.clip, text=text)
    loaded = graph.add(
        "LoraLoader",
        model=accelerated.model,
        clip=accelerated.clip,
        lora_name="add_detail.safetensors",
        strength_model=0.8,
        strength_clip=0.8,
    )

    def prompts(clip):
        return {"positive": accelerated.text(BEFORE, clip), "negative": accelerated.text("blurry", clip)}

    hooked = prompts(graph.output(scheduled, 1))
    with_lora, without = {"model": loaded} | prompts(graph.output(loaded, 1)), prompts(accelerated.clip)
    found, expected, unchanged = run(
        accelerated.ksampler(hooked["positive"], steps, model=scheduled, negative=hooked["negative"]),
        accelerated.in_parts(steps, (first, with_lora), (steps - first, without)),
        accelerated.in_parts(steps, (steps, without)),
    )
    assert relative_error(found, expected) < SAME
    assert relative_error(unchanged, expected) > 1e-2
