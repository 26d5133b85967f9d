"""A graph run from the page with its Run button: the picture and the nodes' texts appear, and everything still fits."""

import shipped_graphs as graphs
from graph_on_page import assert_layout


def test_run(page, server):
    graph = graphs.read("PeRFlow SD1.5 text to image")
    values = {node["type"]: node["widgets_values"] for node in graph["nodes"] if "widgets_values" in node}
    values["EmptyLatentImage"][:2] = 128, 128
    server.forget()  # for what comes from its cache, it does not send the texts again
    page.load(graph)
    page.run(shows=["SaveImage", "PeRFlowSchedulePlot"])
    for text in ("1000 | 750 | 500 | 250", "SD1.5 difference, "):
        page.page.get_by_text(text).first.wait_for()
    assert_layout(page.nodes(), page.groups())
    assert not page.notices()
    assert not page.errors
