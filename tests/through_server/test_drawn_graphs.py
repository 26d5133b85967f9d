"""The graphs in workflows/ are what scripts/graphs draws from this ComfyUI's nodes."""

import json

import environment
import pytest


@pytest.fixture(scope="module")
def drawn(object_info, server):
    from draw_graphs import drawn

    if server.get("/system_stats")["system"]["comfyui_version"] != environment.DEFAULT:
        pytest.skip(f"The graphs are drawn from the nodes of ComfyUI {environment.DEFAULT}.")
    return drawn(object_info)


def test_all_are_drawn(drawn, repository):
    assert sorted(drawn) == sorted(path.stem for path in (repository / "workflows").glob("*.json"))


def test_files_are_up_to_date(drawn, repository):
    """`python scripts/draw_graphs.py` brings them up to date."""
    for title, text in drawn.items():
        assert json.loads((repository / "workflows" / f"{title}.json").read_text(encoding="utf-8")) == json.loads(text)


def test_unknown_input_is_told(object_info):
    from graphs.drawing import Graph

    graph = Graph("test", object_info, {"comfy-core": "0", "perflow": "0", "frontend": "0"})
    graph.column(300)
    with pytest.raises(ValueError, match="KSampler has no input step"):
        graph.add("KSampler", step=4)
