"""A graph run from the page with its Run button: the picture and the nodes' texts appear, stay, and everything fits."""

import time

import pytest
import shipped_graphs as graphs
from graph_on_page import assert_layout

SAME_TEXTS = "texts => JSON.stringify(comfyPage.texts()) === JSON.stringify(texts)"


@pytest.mark.parametrize("shared_page", ["classic"], indirect=True)  # in the other one test_newest_page runs it
def test_run(page, server):
    graph, texts, delta = run(page, server)
    texts_come_and_go(page, server, graph, texts, delta)


def run(page, server):
    """The graph, the texts of its nodes after the run, and the id of the one with the delta."""
    graph = graphs.read("17 SD1.5 all nodes")
    ids = {node["type"]: str(node["id"]) for node in graph["nodes"]}
    delta, schedule = ids["PeRFlowApplyDelta"], ids["PeRFlowWindowSchedule"]
    values = {node["type"]: node["widgets_values"] for node in graph["nodes"] if "widgets_values" in node}
    values["EmptyLatentImage"][:2] = 64, 64
    server.forget()  # for what comes from its cache, it does not send the texts again
    page.page.evaluate("() => sessionStorage.clear()")  # other tests showed texts on this page
    page.open()
    page.load(graph)
    page.run(shows=["SaveImage", "PeRFlowSchedulePlot"])
    wait_for_end(page, server)
    texts = page.texts()
    assert set(texts) == {delta, schedule}
    settings, what, *_ = map(str.strip, texts[delta].splitlines())
    assert (settings, what[:18]) == ("4 steps or more, CFG 4.5 to 7.5", "SD1.5 difference, ")
    assert texts[schedule] == "1000 | 750 | 500 | 250"
    for text in texts.values():
        page.page.get_by_text(text.split("\n")[0].strip()).first.wait_for()
    assert_layout(page.nodes(), page.groups())
    assert not page.errors
    return graph, texts, delta


def texts_come_and_go(page, server, graph, texts, delta):
    after_an_error_the_text_of_the_run_before_goes(page, server, texts)
    texts_come_back_with_their_graph(page, graph, texts, delta)
    a_run_that_began_in_another_graph_says_nothing_here(page, graph)


def after_an_error_the_text_of_the_run_before_goes(page, server, texts):
    """And comes back with a run that reaches its end, though only the failed node has to be run for that."""

    def run_with(source):
        page.page.evaluate("type => comfyPage.link(type, 'PeRFlowWindowSchedule')", source)
        page.page.evaluate("() => app.queuePrompt(0, 1)")
        wait_for_end(page, server)

    run_with("CheckpointLoaderSimple")  # whose model has no windows
    page.page.wait_for_function(SAME_TEXTS, arg={})
    run_with("PeRFlowApplyDelta")
    page.page.wait_for_function(SAME_TEXTS, arg=texts)


def texts_come_back_with_their_graph(page, graph, texts, delta):
    """After a reload of the page too; not in another graph, and not where a node has other values."""
    page.load(graphs.read("27 InstaFlow one step"))
    assert page.texts() == {}
    page.open()
    page.load(graph)
    page.page.wait_for_function(SAME_TEXTS, arg=texts)
    (schedule,) = [node for node in graph["nodes"] if node["type"] == "PeRFlowWindowSchedule"]
    schedule["widgets_values"][0] = 6
    page.load(graph)
    page.page.wait_for_function(SAME_TEXTS, arg={delta: texts[delta]})


def a_run_that_began_in_another_graph_says_nothing_here(page, graph):
    """Its ids are other nodes' here, and what was kept of it would come back."""
    other = graphs.read("27 InstaFlow one step")
    (sampling,) = [node["id"] for node in other["nodes"] if node["type"] == "InstaFlowModelSampling"]
    tell = "([kind, detail]) => comfyAPI.api.api.dispatchCustomEvent(kind, detail)"
    page.load(graph)
    page.page.evaluate(tell, ["execution_start", {"prompt_id": "of this test"}])
    page.load(other)
    page.page.evaluate(tell, ["progress_text", {"nodeId": str(sampling), "text": "another's"}])
    page.page.evaluate(tell, ["execution_success", {"prompt_id": "of this test"}])
    page.settle()
    page.load(other)
    page.settle()
    assert page.texts() == {}
    page.page.evaluate("() => sessionStorage.clear()")


def wait_for_end(page, server):
    while any(server.get("/queue").values()):
        time.sleep(0.1)
    page.settle()
