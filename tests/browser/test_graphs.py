"""Every graph of workflows/ as the page shows it, in both renderings: nothing missing, moved or on top of another."""

import pytest
import shipped_graphs as graphs
from graph_on_page import assert_as_drawn, assert_room_for_texts

# What share of the window's size the page gives a graph at first sight, at 1600 x 1000: at 0.65 one can read the text.
READABLE = 0.65
LARGE = {  # those with many nodes, which are not for beginners
    "13 SD1.5 edit a photo": 0.46,
    "15 SD1.5 text to image then refiner": 0.55,
    "16 SD1.5 hand-over to the base": 0.55,
    "17 SD1.5 all nodes": 0.55,
    "18 Train a delta of a flow model": 0.55,
    "23 Wan 2.2 video in four steps": 0.42,
    "24 Train a delta": 0.55,
    "25 Make my model fast": 0.55,
    "29 InstaFlow then SDXL refiner": 0.55,
    "36 Text to 3D": 0.42,
    "37 Text to 3D from Wonder3D views": 0.26,
    "38 Text to 3D with TripoSplat": 0.33,
    "40 Wonder3D twelve views": 0.35,
}

WITH_IPADAPTER = [title for title in graphs.TITLES if graphs.needs_ipadapter_plus(graphs.read(title))]


@pytest.mark.parametrize("title", [title for title in graphs.TITLES if title not in graphs.WITH_OTHERS])
def test_opens_as_drawn(page, object_info, title):
    graph = graphs.read(title)
    if graphs.lacking(graph, object_info):
        pytest.skip("This ComfyUI lacks nodes of it, as the graph's note says.")
    assert page.first_sight(graph, title) >= LARGE.get(title, READABLE)
    assert_as_drawn(page, graph)
    assert_room_for_texts(page)


@pytest.mark.parametrize("title", WITH_IPADAPTER)
def test_opens_as_drawn_where_the_other_pack_is(ipadapter_page, title):
    graph = graphs.read(title)
    ipadapter_page.load(graph, title)
    assert_as_drawn(ipadapter_page, graph)
    assert_room_for_texts(ipadapter_page)
