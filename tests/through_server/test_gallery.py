"""The program that draws docs/gallery.md, without its long sampling."""

import numpy as np
import pytest
from PIL import Image

PREPARED = dict(lora="a", low_rank={16: "r16", 64: "r64", 128: "r128"})


@pytest.fixture(scope="module")
def sheets():
    from trial.picture_graph import PictureGraph

    from small_model.gallery.sheets import SHEETS, Prepared

    graphs = {name: PictureGraph("checkpoint", "delta") for name in SHEETS}
    return {name: (graphs[name], sheet(graphs[name], Prepared(**PREPARED))) for name, sheet in SHEETS.items()}


def test_the_graphs_are_what_the_server_takes(sheets, object_info):
    """Every required input is given, nothing unknown is, and links lead to nodes that are there."""
    for name, (graph, sheet) in sheets.items():
        assert {len(row) for row in sheet.rows.values()} == {len(sheet.columns)}, name
        for node in graph.nodes.values():
            inputs = object_info[node["class_type"]]["input"]
            required, optional = inputs["required"].keys(), inputs.get("optional", {}).keys()
            assert required <= node["inputs"].keys() <= required | optional, (name, node["class_type"])
            links = [value for value in node["inputs"].values() if isinstance(value, list)]
            assert all(source in graph.nodes for source, _ in links)


def test_equal_nodes_are_one(sheets):
    for graph, _ in sheets.values():
        assert len({str(node) for node in graph.nodes.values()}) == len(graph.nodes)


def test_a_sheet_and_its_numbers(sheets, tmp_path):
    import sampled_sheet

    from small_model import draw_gallery

    _, sheet = sheets["steps"]
    grey = [Image.new("RGB", (8, 8), (level,) * 3) for level in (100, 100, 103, 104, 105, 106)]
    pictures = [grey, grey]
    assert sampled_sheet.differences(pictures, 0) == pytest.approx([0, 0, 3, 4, 5, 6])
    drawn = np.asarray(sheet.drawn(pictures, 2))
    side, gap = 8 * 2, sampled_sheet.SENTENCES.gap
    assert (drawn[-gap - side : -gap, -gap - side : -gap] == 106).all()
    text = draw_gallery.section("steps", sheet, pictures)
    assert "(gallery/steps.jpg)" in text
    assert "PeRFlow, 4 steps: 3.0" in text
