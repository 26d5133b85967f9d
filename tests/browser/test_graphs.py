"""Every graph of workflows/ as the page shows it, in both renderings: nothing missing, moved or on top of another."""

import pytest
import shipped_graphs as graphs
from graph_on_page import assert_as_drawn, assert_room_for_texts

WITH_IPADAPTER = [title for title in graphs.TITLES if graphs.needs_ipadapter_plus(graphs.read(title))]
WITH_OTHERS = [title for title in graphs.TITLES if graphs.other_packs(graphs.read(title))]


@pytest.mark.parametrize("title", [title for title in graphs.TITLES if title not in WITH_OTHERS])
def test_opens_as_drawn(page, object_info, title):
    graph = graphs.read(title)
    if graphs.lacking(graph, object_info):
        pytest.skip("This ComfyUI lacks nodes of it, as the graph's note says.")
    page.load(graph, title)
    assert_as_drawn(page, graph)
    assert_room_for_texts(page)


@pytest.mark.parametrize("title", WITH_IPADAPTER)
def test_opens_as_drawn_where_the_other_pack_is(ipadapter_page, title):
    graph = graphs.read(title)
    ipadapter_page.load(graph, title)
    assert_as_drawn(ipadapter_page, graph)
    assert_room_for_texts(ipadapter_page)


@pytest.mark.parametrize("title", WITH_OTHERS)
def test_without_the_other_pack_its_nodes_are_named(page, object_info, title):
    graph = graphs.read(title)
    if graphs.lacking(graph, object_info):
        pytest.skip("This ComfyUI lacks nodes of it too, as the graph's note says.")
    others = graphs.other_packs(graph)
    theirs = {node["type"] for node in graphs.nodes_of(graph) if graphs.pack_of(node) in others}
    page.load(graph, title)
    assert {node["type"] for node in page.nodes() if node["missing"]} == theirs
    report = page.missing_report()
    assert {node["type"] for node in graph["nodes"] if node["type"] in report} == theirs
    assert ".safetensors" not in report


def test_a_missing_model_is_named(page):
    graph = graphs.read("PeRFlow SD1.5 text to image")
    (loader,) = [node for node in graph["nodes"] if node["type"] == "CheckpointLoaderSimple"]
    loader["widgets_values"] = ["gone.safetensors"]
    loader["properties"]["models"][0]["name"] = "gone.safetensors"
    page.load(graph)
    report = page.missing_report()
    assert "gone.safetensors" in report
    assert report.count(".safetensors") == report.count("gone.safetensors")
    assert "checkpoint" in report.lower()
