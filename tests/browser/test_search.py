"""The node search: the words a user would type find our nodes, and Enter adds one."""

from collections import defaultdict

import pytest

EMPTY = {"version": 0.4, "nodes": [], "links": [], "groups": []}
FEW_STEPS = ["PeRFlowApplyDelta", "PeRFlowModelSampling"]
WORDS = {  # the first of our nodes that are found
    "few step": [*FEW_STEPS, "InstaFlowModelSampling"],
    "4 step": FEW_STEPS,
    "4 steps": FEW_STEPS,
    "four steps": FEW_STEPS,
    "accelerate": [*FEW_STEPS, "InstaFlowModelSampling"],
    "speed": ["PeRFlowApplyDelta"],
    "fast": ["PeRFlowApplyDelta"],
    "lightning": ["PeRFlowApplyDelta"],
    "hyper": ["PeRFlowApplyDelta"],
}


def found(page, words, *wanted):
    """The display names that the search lists, once these are among them; the list fills while one types."""
    results = page.search(words)
    for name in wanted:
        results.get_by_text(name, exact=True).first.wait_for()
    return [text.splitlines()[0].strip() for text in results.all_inner_texts()]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("shared_page", ["classic"], indirect=True)
def test_plain_words(page, our_nodes, words):
    page.load(EMPTY)
    names = [our_nodes[kind]["display_name"] for kind in WORDS[words]]
    ours = {info["display_name"] for info in our_nodes.values()}
    assert [name for name in found(page, words, *names) if name in ours][: len(names)] == names


@pytest.mark.parametrize("shared_page", ["classic"], indirect=True)
def test_the_name_of_the_method(page, our_nodes):
    """The shortest id that begins with it comes first, whatever the aliases; then the node that most people need."""
    page.load(EMPTY)
    names = [info["display_name"] for kind, info in our_nodes.items() if kind.startswith("PeRFlow")]
    assert found(page, "perflow", *names)[:2] == ["PeRFlow Sampler", "Apply PeRFlow Delta"]


@pytest.mark.parametrize("shared_page", ["classic"], indirect=True)
def test_every_alias_finds_its_node(page, our_nodes):
    page.load(EMPTY)
    nodes = defaultdict(set)
    for info in our_nodes.values():
        for words in info["search_aliases"]:
            nodes[words].add(info["display_name"])
    assert nodes
    for words, names in nodes.items():
        assert names <= set(found(page, words, *names)), words


def test_enter_adds_the_node(page):
    page.load(EMPTY)
    assert found(page, "apply perflow delta", "Apply PeRFlow Delta") == ["Apply PeRFlow Delta"]
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("() => app.graph._nodes.length == 1")
    page.page.mouse.click(700, 500)  # where the node is to stand; older versions have put it down already
    page.settle()
    (node,) = page.nodes()
    assert node["type"] == "PeRFlowApplyDelta"
    assert not page.notices()
