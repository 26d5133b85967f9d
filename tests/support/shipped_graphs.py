"""The graphs of workflows/ as they were saved: their nodes, files and packs, and what other packs add to a server."""

import copy
import json
from typing import Any

from environment import PACK

Json = dict[str, Any]

FOLDER = PACK / "workflows"
TITLES = sorted(path.stem for path in FOLDER.glob("*.json"))
BYPASSED = 4
NOTES = ("MarkdownNote", "Note")
IPADAPTER_PLUS = "comfyui_ipadapter_plus"
INTERFACE = json.loads((PACK / "tests" / "ipadapter_plus_interface.json").read_text(encoding="utf-8"))
TRIPOSR = "flowtyone/ComfyUI-Flowty-TripoSR"  # not in the registry: a pack's repository stands for its id
TRIPOSR_INTERFACE = json.loads((PACK / "tests" / "triposr_interface.json").read_text(encoding="utf-8"))


def read(title: str) -> Json:
    return json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8"))


def nodes_of(graph: Json) -> list[Json]:
    """All nodes but notes."""
    return [node for node in graph["nodes"] if node["type"] not in NOTES]


def models_of(graph: Json) -> list[Json]:
    """The model files that its loaders ask for: name, url, directory."""
    return [model for node in graph["nodes"] for model in node["properties"].get("models", [])]


def trained_by_the_user(graph: Json) -> set[str]:
    """The delta files, without an address, that its user makes first; Apply PeRFlow Delta is bypassed until then."""
    appliers = [node for node in nodes_of(graph) if node["type"] == "PeRFlowApplyDelta" and node["mode"] == BYPASSED]
    return {node["widgets_values"][0] for node in appliers if "models" not in node["properties"]}


def without_bypass(graph: Json, *kinds: str) -> Json:
    """A copy as it is when nodes of these types, bypassed at first, are in use."""
    graph = copy.deepcopy(graph)
    for node in graph["nodes"]:
        if node["type"] in kinds:
            node["mode"] = 0
    return graph


def pack_of(node: Json) -> str:
    """The id of its pack in the registry, or the repository of one that is not there."""
    return node["properties"].get("cnr_id") or node["properties"]["aux_id"]


def other_packs(graph: Json) -> set[str]:
    return {pack_of(node) for node in nodes_of(graph)} - {"comfy-core", "perflow"}


WITH_OTHERS = [title for title in TITLES if other_packs(read(title))]


def needs_ipadapter_plus(graph: Json) -> bool:
    return IPADAPTER_PLUS in other_packs(graph)


def lacking(graph: Json, object_info: Json) -> set[str]:
    """ComfyUI's own nodes in it that this ComfyUI does not have; a note says from which version on it has."""
    return {
        node["type"] for node in nodes_of(graph) if pack_of(node) == "comfy-core" and node["type"] not in object_info
    }


def says_which_comfyui(graph: Json) -> bool:
    notes = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] in NOTES]
    return any("Needs ComfyUI 0." in note for note in notes)


def with_ipadapter_plus(object_info: Json, files: list[str]) -> Json:
    """What the server would say about its nodes if it had that pack and these files for it."""
    interface = copy.deepcopy(INTERFACE)
    interface["IPAdapterModelLoader"]["input"]["required"]["ipadapter_file"] = [files]
    return interface | object_info


def with_triposr(object_info: Json) -> Json:
    """What the server would say about its nodes if it had that pack; its models are among the checkpoints."""
    interface = copy.deepcopy(TRIPOSR_INTERFACE)
    checkpoints = object_info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
    interface["TripoSRModelLoader"]["input"]["required"]["model"] = checkpoints[:1]  # without its tooltip
    return interface | object_info
