"""The pack as ComfyUI's loader sees it."""

import json
from pathlib import Path

import pytest
import torch
from describe_nodes import contract_entry
from PIL import ImageColor

CONTRACT = json.loads((Path(__file__).parent.parent / "node_contract.json").read_text())
NODES = list(CONTRACT)

# Where ComfyUI itself writes down every pack that it loads, and our own folder key with its file list.
REGISTRIES = {
    "nodes.NODE_CLASS_MAPPINGS",
    "nodes.NODE_DISPLAY_NAME_MAPPINGS",
    "nodes.LOADED_MODULE_DIRS",
    "nodes.EXTENSION_WEB_DIRS",
    "folder_paths.folder_names_and_paths",
    "folder_paths.filename_list_cache",
}


def test_loading_changes_nothing_of_comfyuis(comfyui):
    from core_state import CHANGES

    assert [(set(), REGISTRIES)] == CHANGES


def test_loading_imports_no_module_more(comfyui):
    """What takes long at a start is imports; the seconds are benchmarks/overhead.py's.

    Other tests of this process may have imported some already: test_programs.py asks a fresh one.
    """
    assert comfyui.imported_by_loading == set()


def test_all_nodes_are_there(comfyui):
    """`python scripts/describe_nodes.py` writes the entry of a new one into the contract."""
    ours = [name for name, node in comfyui.nodes.items() if getattr(node, "CATEGORY", "").startswith("PeRFlow")]
    assert ours == NODES


def test_folders(comfyui):
    import folder_paths

    paths = [Path(path) for path in folder_paths.get_folder_paths("perflow")]
    assert paths == [comfyui.base / "models" / "perflow", comfyui.base / "output" / "perflow"]


def test_contract_with_saved_graphs(comfyui):
    """Saved graphs keep widget values by position. A new input goes last, nothing else in that file ever changes."""
    found = {name: contract_entry(comfyui.nodes[name].GET_NODE_INFO_V1()) for name in NODES}
    assert json.loads(json.dumps(found)) == CONTRACT
    for name, node in CONTRACT.items():  # the order too, which comparing dictionaries does not see
        assert list(found[name]["inputs"]) == list(node["inputs"])


@pytest.mark.parametrize("name", NODES)
def test_a_node_that_shows_text_is_not_taken_for_one_of_another_id(comfyui, name):
    """ComfyUI's cache would hand on what a node of another graph gave, with that node's id in it."""
    node = comfyui.nodes[name]
    assert bool(node.NOT_IDEMPOTENT) == ("unique_id" in node.INPUT_TYPES().get("hidden", {}))


@pytest.mark.parametrize("name", NODES)
def test_a_seed_says_that_the_page_saves_a_second_value_for_it(comfyui, name):
    """By its name alone, ComfyUI's page adds control_after_generate; converters of saved graphs read the interface."""
    for key, (kind, *options) in comfyui.nodes[name].INPUT_TYPES()["required"].items():
        if kind == "INT":
            assert bool(options[0].get("control_after_generate")) == (key in ("seed", "noise_seed")), key


@pytest.mark.parametrize("name", NODES)
def test_every_input_has_a_tooltip(comfyui, name):
    info = comfyui.nodes[name].GET_NODE_INFO_V1()
    assert info["description"]
    for key, (_, *options) in info["input"]["required"].items():
        assert options[0].get("tooltip"), key


@pytest.mark.parametrize("steps", [0, 1, 6])
def test_plot(comfyui, run, perflow, schedule, steps):
    """A dot at every step's place, bands that change at the edges, both curves, and nothing else that is red."""
    drawing, model = comfyui.module("perflow_core.drawing.plots"), perflow()
    sampling = model.get_model_object("model_sampling")
    sigmas = schedule(model, max(steps, 1), denoise=min(steps, 1.0))
    (image,) = run("PeRFlowSchedulePlot", model=model, sigmas=sigmas)
    assert image.shape == (1, 600, 800, 3)
    assert 0 <= image.min() < image.max() <= 1
    chord = sampling.chord
    axes = drawing.Axes(chord)

    def is_there(colour, T, sigma):
        x, y = round(axes.x(T)), round(axes.y(sigma))
        wanted = torch.tensor(ImageColor.getrgb(colour)) / 255
        return bool(((image[0, y - 1 : y + 2, x - 1 : x + 2] - wanted).abs().amax(dim=-1) < 0.1).any())

    places = list(zip(sampling.timestep(sigmas[:-1]).tolist(), sigmas[:-1].tolist(), strict=True))
    assert len(places) == steps
    assert all(is_there(drawing.STEP, T, sigma) for T, sigma in places)
    red = (image[0, ..., 0] - image[0, ..., 1:].amax(dim=-1) > 0.4).any(dim=0).nonzero().flatten().tolist()
    assert all(min(abs(x - axes.x(T)) for T, _ in places) < 12 for x in red)
    assert bool(red) == bool(steps)
    for T in (920.0, 690.0, 330.0, 60.0):  # between the dots
        assert is_there(drawing.CHORD, T, float(chord.sigma(torch.tensor(T, dtype=torch.float64))))
    assert is_there(drawing.STOCK, 920, float((1 / sampling.base.alphas_cumprod[919] - 1) ** 0.5))
    for w, T in enumerate((990, 740, 490, 240)):  # just inside every window, above the curves
        assert is_there(drawing.BANDS[w % 2], T, 25.0)
