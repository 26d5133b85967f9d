"""The template browser: every graph under the pack's name with its own picture, and one opened by a click.

The one that leaves the browser open comes last: Escape does not close it, so a page after it is loaded afresh.
"""

import pytest
import shipped_graphs as graphs
from graph_on_page import assert_as_drawn

CATEGORY = "PeRFlow"
LOADED = "picture => picture.decode().then(() => [picture.src, picture.naturalWidth])"


def show_more(page, cards):
    """The page adds some where its end is seen."""
    known = cards.count()
    cards.last.hover()
    page.page.mouse.wheel(0, 10_000)
    cards.nth(known).wait_for()


IN_ONE_RENDERING = pytest.mark.parametrize("shared_page", ["classic"], indirect=True)


@IN_ONE_RENDERING
def test_a_click_opens_the_graph(page):
    title = "01 SD1.5 text to image"
    cards = page.open_templates(CATEGORY)
    wanted = cards.filter(has=page.page.get_by_role("heading", name=title, exact=True))
    while not wanted.count() and cards.count() < len(graphs.TITLES):  # ComfyUI sorts them as the disk does
        show_more(page, cards)
    wanted.click()
    page.page.get_by_role("dialog").wait_for(state="detached")
    page.settle()
    page.fit()
    assert_as_drawn(page, graphs.read(title))


@IN_ONE_RENDERING
def test_every_graph_has_its_card_and_picture(page):
    cards, pictures = page.open_templates(CATEGORY), {}
    for i in range(len(graphs.TITLES)):
        if i == cards.count():
            show_more(page, cards)
        card = cards.nth(i)
        card.scroll_into_view_if_needed()  # only then its picture is fetched
        pictures[card.get_by_role("heading").inner_text()] = card.locator("img").evaluate(LOADED)
    assert sorted(pictures) == graphs.TITLES
    assert cards.count() == len(graphs.TITLES)
    assert not [title for title, (address, width) in pictures.items() if "default-template" in address or not width]
