"""Image prompts by ComfyUI_IPAdapter_plus on a model with time windows, where a checkout of that pack is at hand."""

import pytest
import shipped_graphs as graphs
from smaller_graphs import smaller


@pytest.fixture(scope="module")
def info(ipadapter_server):
    return ipadapter_server.object_info()


@pytest.mark.parametrize("kind", sorted(graphs.INTERFACE))
def test_the_interface_is_the_packs(info, kind):
    data = graphs.with_ipadapter_plus({}, info["IPAdapterModelLoader"]["input"]["required"]["ipadapter_file"][0])[kind]
    assert data == {name: info[kind][name] for name in data}


@pytest.fixture
def prompt(info, find):
    """(title, inputs of the node that applies the image prompt) -> the graph as the server runs it."""
    from trial.server import to_api

    def make(title, **inputs):
        prompt = smaller(to_api(graphs.read(title), info))
        find(prompt, "IPAdapterAdvanced")["inputs"] |= inputs
        return prompt

    return make


@pytest.fixture
def run(ipadapter_server, prompt, picture):
    """The same -> the picture."""
    return lambda title, **inputs: picture(prompt(title, **inputs), server=ipadapter_server)[0]


CHECKPOINT = "CheckpointLoaderSimple"
SD15, SDXL = "08 SD1.5 IP-Adapter and ControlNet", "09 SDXL IP-Adapter"


@pytest.mark.parametrize("title", [SD15, SDXL])
def test_the_image_changes_the_picture(run, title):
    assert abs(run(title, weight=0.8) - run(title, weight=0.0)).mean() > 1


# In parts of the way: SD1.5's second step of 4 is at 1/4, SDXL's second of 6 at 1/8.
@pytest.mark.parametrize(("title", "before", "after"), [(SD15, 0.24, 0.26), (SDXL, 0.12, 0.13)])
def test_an_end_takes_effect_at_the_step_it_names(run, title, before, after):
    first_step_only = run(title, end_at=0.01)
    assert abs(first_step_only - run(title, end_at=before)).max() == 0
    assert abs(first_step_only - run(title, end_at=after)).mean() > 0.1


@pytest.fixture
def edited(ipadapter_server, prompt, find, find_id, pictures):
    """Prompt-to-Prompt before or after the image prompt -> the pictures of the source and of the edit."""

    def run(order, edited, **inputs):
        graph = prompt(SD15, **inputs)
        sampler, adapter = find(graph, "KSampler")["inputs"], find(graph, "IPAdapterAdvanced")["inputs"]
        changed = adapter if order == "before" else sampler
        texts = {"source": "a red cat", "edited": edited, "edit": "auto", "emphasis": "", "blend": ""}
        shares = {"cross_steps": 0.8, "self_steps": 0.4, "blend_threshold": 0.3}
        links = {"model": changed["model"], "latent": sampler["latent_image"], "clip": [find_id(graph, CHECKPOINT), 1]}
        graph["edit"] = {"class_type": "PeRFlowPromptToPrompt", "inputs": links | texts | shares}
        changed["model"], sampler["latent_image"] = ["edit", 0], ["edit", 2]
        find(graph, "ControlNetApplyAdvanced")["inputs"]["positive"] = ["edit", 1]
        return pictures(graph, ipadapter_server)

    return run


def test_edits_of_a_picture_with_an_image_prompt(edited):
    before, after = edited("before", "a blue dog"), edited("after", "a blue dog")
    assert abs(before - after).max() == 0
    source, edit = after
    assert abs(source - edit).mean() > 1
    assert abs(after - edited("after", "a blue dog", weight=0.0)).mean() > 1
    same = edited("after", "a red cat")
    assert abs(same[0] - same[1]).max() <= 1  # some CPUs add up the rows of a batch in different orders
    assert abs(same[0] - source).max() <= 1
