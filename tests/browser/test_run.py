"""A graph run from the page with its Run button: the picture and the nodes' texts appear, and everything still fits."""

import shipped_graphs as graphs
from graph_on_page import assert_layout


def test_run(page):
    graph = graphs.read("PeRFlow SD1.5 text to image")
    values = {node["type"]: node["widgets_values"] for node in graph["nodes"] if "widgets_values" in node}
    values["EmptyLatentImage"][:2] = 128, 128
    # Not what has run before: for what comes from its cache, the server does not send the texts again.
    values["PeRFlowApplyDelta"][1] = 0.98 if page.nodes2 else 0.99
    page.load(graph)
    page.run(shows=["SaveImage", "PeRFlowSchedulePlot"])
    for text in ("1000 | 750 | 500 | 250", "SD1.5 difference, "):
        page.page.get_by_text(text).first.wait_for()
    assert_layout(page.nodes(), page.groups())
    assert not page.notices()
    assert not page.errors
