"""Every graph of workflows/ as the page shows it, in both renderings: nothing missing, moved or on top of another."""

import pytest
import shipped_graphs as graphs
from graph_on_page import assert_as_drawn, assert_room_for_texts

WITH_IPADAPTER = [title for title in graphs.TITLES if graphs.needs_ipadapter_plus(graphs.read(title))]


@pytest.mark.parametrize("title", [title for title in graphs.TITLES if title not in graphs.WITH_OTHERS])
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
