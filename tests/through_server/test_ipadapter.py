"""Image prompts by ComfyUI_IPAdapter_plus on a model with time windows, where a checkout of that pack is at hand."""

import pytest
import shipped_graphs as graphs


@pytest.fixture(scope="module")
def info(ipadapter_server):
    return ipadapter_server.object_info()


@pytest.mark.parametrize("kind", sorted(graphs.INTERFACE))
def test_the_interface_is_the_packs(info, kind):
    data = graphs.with_ipadapter_plus({}, info["IPAdapterModelLoader"]["input"]["required"]["ipadapter_file"][0])[kind]
    assert data == {name: info[kind][name] for name in data}


@pytest.fixture
def run(request, ipadapter_server, info, picture, find):
    """(title, inputs of the node that applies the image prompt) -> the picture."""
    from comfy_server import to_api

    def run(title, **inputs):
        prompt = graphs.smaller(to_api(graphs.read(title), info))
        find(prompt, "IPAdapterAdvanced")["inputs"] |= inputs
        pixels, _ = picture(prompt, server=ipadapter_server)
        return pixels

    return run


SD15, SDXL = "PeRFlow SD1.5 IP-Adapter and ControlNet", "PeRFlow SDXL IP-Adapter"


@pytest.mark.parametrize("title", [SD15, SDXL])
def test_the_image_changes_the_picture(run, title):
    assert abs(run(title, weight=0.8) - run(title, weight=0.0)).mean() > 1


# In parts of the way: SD1.5's second step of 4 is at 1/4, SDXL's second of 6 at 1/8.
@pytest.mark.parametrize(("title", "before", "after"), [(SD15, 0.24, 0.26), (SDXL, 0.12, 0.13)])
def test_an_end_takes_effect_at_the_step_it_names(run, title, before, after):
    first_step_only = run(title, end_at=0.01)
    assert abs(first_step_only - run(title, end_at=before)).max() == 0
    assert abs(first_step_only - run(title, end_at=after)).mean() > 0.1
