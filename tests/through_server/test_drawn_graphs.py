"""The graphs in workflows/ are what scripts/graphs draws from this ComfyUI's nodes."""

import json

import pytest


@pytest.fixture(scope="module")
def drawn(nodes_of_the_graphs):
    from draw_graphs import drawn

    return drawn(nodes_of_the_graphs)


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
