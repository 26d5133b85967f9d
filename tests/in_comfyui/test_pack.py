"""The pack as ComfyUI's loader sees it."""

import json
from pathlib import Path

import pytest

NODES = [
    "PeRFlowApplyDelta",
    "PeRFlowModelSampling",
    "PeRFlowWindowSchedule",
    "PeRFlowSampler",
    "PeRFlowSchedulePlot",
    "PeRFlowExtractDelta",
    "PeRFlowTrainDelta",
    "InstaFlowModelSampling",
    "InstaFlowNoise",
    "PCMPhaseSchedule",
]
CONTRACT = Path(__file__).parent.parent / "node_contract.json"

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
    assert comfyui.changed_by_loading == set()
    assert comfyui.added_to_by_loading == REGISTRIES


def test_loading_is_quick(comfyui):
    """The promise is 0.1 s (benchmarks/overhead.py measures it); this only tells a heavy import from a light one."""
    assert comfyui.seconds_to_load < 1.0


def test_all_nodes_are_there(comfyui):
    ours = [name for name, node in comfyui.nodes.items() if getattr(node, "CATEGORY", "").startswith("PeRFlow")]
    assert ours == NODES


def test_folders(comfyui):
    import folder_paths

    paths = [Path(path) for path in folder_paths.get_folder_paths("perflow")]
    assert paths == [comfyui.base / "models" / "perflow", comfyui.base / "output" / "perflow"]


def contract(comfyui) -> dict:
    """Ids, inputs in order, types, defaults and outputs: what saved graphs rely on."""
    nodes = {}
    for name in NODES:
        info = comfyui.nodes[name].GET_NODE_INFO_V1()
        inputs = {}
        for required in ("required", "optional"):
            for key, (kind, *options) in info["input"].get(required, {}).items():
                default = options[0].get("default") if options else None
                inputs[key] = {"type": kind if isinstance(kind, str) else "COMBO", "default": default}
        nodes[name] = {"inputs": inputs, "outputs": list(info["output"])}
    return nodes


def test_contract_with_saved_graphs(comfyui):
    """Saved graphs keep widget values by position. A new input goes last, nothing else in this file ever changes."""
    found, frozen = contract(comfyui), json.loads(CONTRACT.read_text())
    assert json.loads(json.dumps(found)) == frozen
    for name, node in frozen.items():  # the order too, which comparing dictionaries does not see
        assert list(found[name]["inputs"]) == list(node["inputs"])


@pytest.mark.parametrize("name", NODES)
def test_every_input_has_a_tooltip(comfyui, name):
    info = comfyui.nodes[name].GET_NODE_INFO_V1()
    assert info["description"]
    for key, (_, *options) in info["input"]["required"].items():
        assert options[0].get("tooltip"), key


def test_plot(run, perflow, schedule):
    model = perflow()
    for sigmas in (schedule(model, 6), schedule(model, 4, denoise=0.0), schedule(model, 1)):
        (image,) = run("PeRFlowSchedulePlot", model=model, sigmas=sigmas)
        assert image.shape == (1, 600, 800, 3)
        assert image.min() >= 0
        assert image.max() == 1
        assert len(image.reshape(-1, 3).unique(dim=0)) > 20
