"""What the page says where a graph needs another pack, or a model file that is not there."""

import pytest
import shipped_graphs as graphs


@pytest.mark.parametrize("shared_page", ["classic"], indirect=True)  # the report is the same in both
@pytest.mark.parametrize("title", graphs.WITH_OTHERS)
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
    graph = graphs.read("01 SD1.5 text to image")
    (loader,) = [node for node in graph["nodes"] if node["type"] == "CheckpointLoaderSimple"]
    loader["widgets_values"] = ["gone.safetensors"]
    loader["properties"]["models"][0]["name"] = "gone.safetensors"
    page.load(graph)
    report = page.missing_report()
    assert "gone.safetensors" in report
    assert report.count(".safetensors") == report.count("gone.safetensors")
    assert "checkpoint" in report.lower()


def test_a_delta_that_is_trained_later_is_not_reported(page):
    """Its node is bypassed: the graph opens without a complaint."""
    graph = graphs.read("19 SD3.5 four steps")
    (applier,) = [node for node in graph["nodes"] if node["type"] == "PeRFlowApplyDelta"]
    applier["widgets_values"][0] = "trained-later_00001_.safetensors"
    page.load(graph)
    assert not page.notices()
    assert not page.errors


def test_a_folder_of_the_users_is_not_reported(page):
    page.load(graphs.read("18 Train a delta of a flow model"))
    assert not page.notices()
    assert not page.errors
