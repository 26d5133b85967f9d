"""The info panel of each node shows the node's page of web/docs."""

import re

import pytest
from environment import PACK

PAGES = sorted((PACK / "web" / "docs").glob("*.md"))


def test_every_node_has_a_page(our_nodes):
    assert sorted(our_nodes) == [page.stem for page in PAGES]


@pytest.mark.parametrize("shared_page", ["classic"], indirect=True)
@pytest.mark.parametrize("kind", [page.stem for page in PAGES])
def test_page_is_shown(page, kind):
    page.load({"version": 0.4, "nodes": [{"id": 1, "type": kind, "pos": [0, 0]}], "links": [], "groups": []})
    shown = page.node_help(page.nodes()[0])
    text = (PACK / "web" / "docs" / f"{kind}.md").read_text(encoding="utf-8")
    heading = re.search("^# (.+)", text, re.MULTILINE)[1]
    assert shown.get_by_role("heading", name=heading, exact=True).is_visible()
    first, *_ = text.split("**Inputs**\n- ")[1].splitlines()
    item = re.sub(r"[`*\\]", "", first)
    assert shown.get_by_role("listitem").filter(has_text=item).is_visible()
    assert all(shown.locator("img").evaluate_all("pictures => pictures.map(picture => picture.naturalWidth)"))
