"""The newest of ComfyUI's web pages, which scripts/locks/page.txt pins: what this pack needs of a page.

Every graph opened well on it when it was pinned, in both renderings. These few have each of our nodes, and are opened
in the rendering that this page begins with.
"""

import pytest
import test_graphs
import test_help
import test_missing
import test_run as running
import test_search
import test_templates

TITLES = [
    "30 InstaFlow film",
    "32 PCM SD1.5",
    "13 SD1.5 edit a photo",
    "02 SDXL text to image",
    "26 Make an SDXL delta",
    "37 Text to 3D from Wonder3D views",
    "23 Wan 2.2 video in four steps",
    "24 Train a delta",
    "18 Train a delta of a flow model",
]


@pytest.fixture(scope="module")
def server(newest_page_server):
    return newest_page_server


@pytest.fixture(scope="module")
def object_info(server):
    return server.object_info()


@pytest.fixture(scope="module", params=["nodes2"])
def shared_page(request, open_newest_pages):
    return open_newest_pages(request.param)


@pytest.mark.parametrize("title", TITLES)
def test_opens_as_drawn(page, object_info, title):
    test_graphs.test_opens_as_drawn(page, object_info, title)


def test_a_missing_model_is_named(page):
    test_missing.test_a_missing_model_is_named(page)


def test_a_delta_that_is_trained_later_is_not_reported(page):
    test_missing.test_a_delta_that_is_trained_later_is_not_reported(page)


def test_enter_adds_the_node(page):
    test_search.test_enter_adds_the_node(page)


def test_help_is_shown(page):
    test_help.test_page_is_shown(page, "PeRFlowSchedulePlot")  # which has a picture


def test_run(page, server):
    running.run(page, server)


def test_a_click_opens_the_graph(page):
    test_templates.test_a_click_opens_the_graph(page)
