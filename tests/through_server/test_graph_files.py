"""The graphs as files: what ComfyUI's page and Manager need to open them, and what a reader needs to use them."""

import json
import re
from itertools import combinations
from pathlib import Path

import jsonschema
import pytest
import shipped_graphs as graphs
import thumbnails
from PIL import Image
from trial.small_models.tables import TABLES

TITLE_BAR = 30
TRAINING = "18 Train a delta of a flow model"


@pytest.fixture(params=graphs.TITLES)
def title(request):
    return request.param


@pytest.fixture
def graph(title):
    return graphs.read(title)


@pytest.fixture(scope="module")
def schema(repository):
    return json.loads((repository / "tests" / "workflow_schema.json").read_text(encoding="utf-8"))


def test_form(graph, schema):
    jsonschema.validate(graph, schema)


def test_ids_are_unique(graph):
    for entries in (
        [node["id"] for node in graph["nodes"]],
        [node["order"] for node in graph["nodes"]],
        [link[0] for link in graph["links"]],
    ):
        assert len(set(entries)) == len(entries)
    assert graph["last_node_id"] == max(node["id"] for node in graph["nodes"])
    assert graph["last_link_id"] == max(link[0] for link in graph["links"])


def test_links_agree_from_both_ends(graph):
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link, source, output, target, entry, kind in graph["links"]:
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][entry]["link"] == link
        assert nodes[source]["outputs"][output]["type"] == kind
        assert kind == "*" or {kind, "*"} & set(nodes[target]["inputs"][entry]["type"].split(","))
    links = {link[0] for link in graph["links"]}
    assert links == {link for node in nodes.values() for output in node["outputs"] for link in output["links"]}
    assert links == {entry["link"] for node in nodes.values() for entry in node["inputs"]} - {None}


def test_nodes_say_where_they_are_from(graph, object_info):
    """So that ComfyUI's Manager can offer what is missing."""
    ours = {"perflow": "custom_nodes.perflow", graphs.IPADAPTER_PLUS: f"custom_nodes.{graphs.IPADAPTER_PLUS}"}
    ours[graphs.TRIPOSR] = "custom_nodes.ComfyUI-Flowty-TripoSR"
    info = graphs.INTERFACE | graphs.TRIPOSR_INTERFACE | object_info
    lacking = graphs.lacking(graph, object_info)
    for node in graphs.nodes_of(graph):
        if node["type"] in lacking:
            continue
        module, origin = info[node["type"]]["python_module"], graphs.pack_of(node)
        assert node["properties"]["Node name for S&R"] == node["type"]
        assert module == ours.get(origin, module)
        assert (origin == "comfy-core") == (not module.startswith("custom_nodes.")), node["type"]


def test_every_model_file_has_its_address(graph, server):
    """ComfyUI's list of missing models goes by the name alone, which has to be the one in the loader."""
    known = set(server.get("/models"))
    ours = {Path(name).name for name in TABLES["trained"](Path())}  # scripts/install_small_model.py makes them
    for node in graphs.nodes_of(graph):
        asked = [value for value in node["widgets_values"] if re.search(r"\.(safetensors|ckpt|pt|bin)$", str(value))]
        asked = [name for name in asked if name not in graphs.trained_by_the_user(graph) | ours]
        models = node["properties"].get("models", [])
        assert sorted(model["name"] for model in models) == sorted(asked), node["type"]
        assert {model["directory"] for model in models} <= known


def test_a_note_names_every_model_file(graph):
    notes = "\n".join(node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote")
    for model in graphs.models_of(graph):
        assert model["name"] in notes
        assert f"models/{model['directory']}" in notes


def test_there_is_a_small_model_for_every_file_and_no_other():
    asked = {f"{model['directory']}/{model['name']}" for title in graphs.TITLES for model in files(title)}
    trained = {f"perflow/{name}" for title in graphs.TITLES for name in graphs.trained_by_the_user(graphs.read(title))}
    assert asked | trained == TABLES["graphs"](Path()).keys()


def test_a_note_says_how_to_train_what_its_user_has_to_train(graph):
    """With which graph, and with which filename_prefix, which is the name of the file without its number."""
    notes = "\n".join(node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote")
    for name in graphs.trained_by_the_user(graph):
        prefix = name.removesuffix("_00001_.safetensors")
        assert prefix != name
        assert TRAINING in notes
        assert f"`{prefix}" in notes
        assert "Ctrl+B" in notes


def files(title):
    return graphs.models_of(graphs.read(title))


def test_one_address_for_a_file():
    addresses: dict[str, set[str]] = {}
    for title in graphs.TITLES:
        for model in files(title):
            addresses.setdefault(model["name"], set()).add(model["url"])
    assert not {name: urls for name, urls in addresses.items() if len(urls) > 1}


def test_ids_differ():
    assert len({graphs.read(title)["id"] for title in graphs.TITLES}) == len(graphs.TITLES) > 0


def test_every_graph_has_a_card_in_the_order_of_their_numbers():
    assert list(thumbnails.CARDS) == graphs.TITLES
    assert [int(title.split()[0]) for title in graphs.TITLES] == list(range(1, len(graphs.TITLES) + 1))


def test_every_graph_that_a_text_names_is_there(repository):
    """A title in italics, wherever the line breaks."""
    pages = [repository / "README.md", *(repository / "docs").glob("*.md"), *(repository / "web").rglob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    texts += [
        node["widgets_values"][0]
        for title in graphs.TITLES
        for node in graphs.read(title)["nodes"]
        if node["type"] in graphs.NOTES
    ]
    named = {name for text in texts for name in re.findall(r"\*(\d\d [^*]+)\*", " ".join(text.split()))}
    assert len(named) > 5
    assert named <= set(graphs.TITLES)


def test_thumbnail(title):
    with Image.open(graphs.FOLDER / f"{title}.jpg") as picture:
        picture.load()
        assert picture.format == "JPEG"
        assert min(picture.size) >= 200


def test_title_is_a_name_for_a_file_and_an_address(title):
    assert re.fullmatch(r"[\w .,()-]+", title)


def test_nothing_lies_on_another(graph):
    boxes = {node["id"]: box(node) for node in graph["nodes"]}
    for (one, first), (other, second) in combinations(boxes.items(), 2):
        assert not overlap(first, second), (one, other)


def test_every_node_is_wholly_in_a_group_or_wholly_outside(graph):
    groups = [(x, y, x + width, y + height) for x, y, width, height in (group["bounding"] for group in graph["groups"])]
    assert not [pair for pair in combinations(groups, 2) if overlap(*pair)]
    for node in graph["nodes"]:
        left, top, right, bottom = box(node)
        for group in groups:
            inside = group[0] <= left and group[1] <= top and group[2] >= right and group[3] >= bottom
            assert inside or not overlap(group, (left, top, right, bottom)), node["id"]


def box(node):
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_BAR, x + width, y + height


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
