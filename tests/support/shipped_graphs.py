"""The graphs of workflows/: as they were saved, and in the form the server runs, at a size for tests."""

import copy
import json
from typing import Any

from environment import PACK

Json = dict[str, Any]

FOLDER = PACK / "workflows"
TITLES = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = ("MarkdownNote", "Note")
IPADAPTER_PLUS = "comfyui_ipadapter_plus"
INTERFACE = json.loads((PACK / "tests" / "ipadapter_plus_interface.json").read_text(encoding="utf-8"))

SMALLER = 8  # a picture of 512 x 512 becomes one of 64 x 64
_MOST = {"KSampler": {"steps": 8}, "EmptyLatentImage": {"batch_size": 4}, "InstaFlowNoise": {"frames": 4}}
_LENGTHS = {"width", "height", "target_width", "target_height", "crop_w", "crop_h", "x", "y", "largest_size"}


def read(title: str) -> Json:
    return json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8"))


def nodes_of(graph: Json) -> list[Json]:
    """All nodes but notes."""
    return [node for node in graph["nodes"] if node["type"] not in NOTES]


def models_of(graph: Json) -> list[Json]:
    """The model files that its loaders ask for: name, url, directory."""
    return [model for node in graph["nodes"] for model in node["properties"].get("models", [])]


def needs_ipadapter_plus(graph: Json) -> bool:
    return any(node["properties"]["cnr_id"] == IPADAPTER_PLUS for node in nodes_of(graph))


def lacking(graph: Json, object_info: Json) -> set[str]:
    """ComfyUI's own nodes in it that this ComfyUI does not have; a note says from which version on it has."""
    return {
        node["type"]
        for node in nodes_of(graph)
        if node["properties"]["cnr_id"] == "comfy-core" and node["type"] not in object_info
    }


def says_which_comfyui(graph: Json) -> bool:
    notes = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] in NOTES]
    return any("Needs ComfyUI 0." in note for note in notes)


def with_ipadapter_plus(object_info: Json, files: list[str]) -> Json:
    """What the server would say about its nodes if it had that pack and these files for it."""
    interface = copy.deepcopy(INTERFACE)
    interface["IPAdapterModelLoader"]["input"]["required"]["ipadapter_file"] = [files]
    return interface | object_info


def smaller(prompt: Json) -> Json:
    """The prompt with every length in pixels divided by SMALLER, and what is long or many cut short."""
    prompt = copy.deepcopy(prompt)
    _shrink_wonder3d(prompt)
    for node in prompt.values():
        if node["class_type"] == "PeRFlowTrainDelta":
            node["inputs"] |= {"steps": 2, "batch_size": 2, "rank": 4, "solving_steps": 1}
        for name, most in _MOST.get(node["class_type"], {}).items():
            node["inputs"][name] = min(node["inputs"][name], most)
        for name, value in node["inputs"].items():
            if name in _LENGTHS and isinstance(value, int):
                node["inputs"][name] = value // SMALLER
    return prompt


def sizes(prompt: Json) -> set[tuple[int, int]]:
    """Every width and height that a node of the prompt asks for."""
    inputs = [node["inputs"] for node in prompt.values()]
    return {(values["width"], values["height"]) for values in inputs if {"width", "height"} <= values.keys()}


def _shrink_wonder3d(prompt: Json) -> None:
    """Twelve pictures of 512 / SMALLER; what would take minutes or a file of its own is done by other nodes.

    BiRefNet has one size, so a mask comes from the picture itself. The small SD1.5 has one level and the small Wonder3D
    all four, so the delta of the one does not fit the other, which gets the sampling alone.
    """
    for key, node in list(prompt.items()):
        if node["class_type"] == "RemoveBackground":
            remover, _ = node["inputs"].pop("bg_removal_model")
            del prompt[remover]
            node |= {"class_type": "ImageToMask", "inputs": node["inputs"] | {"channel": "red"}}
        if node["class_type"] == "Wonder3DLoader":
            (delta,) = [other for other in prompt.values() if other["inputs"].get("model") == [key, 0]]
            sampling = {"prediction_type": "auto", "windows": 4, "align_steps": True}
            delta |= {"class_type": "PeRFlowModelSampling", "inputs": {"model": [key, 0], **sampling}}
        if node["class_type"] == "Wonder3DConditioning":
            for other in list(prompt.values()):
                if other["inputs"].get("latent_image") == [key, 2]:
                    other["inputs"]["latent_image"] = ["smaller", 0]
            scaling = {"upscale_method": "nearest-exact", "width": 512, "height": 512, "crop": "disabled"}
            prompt["smaller"] = {"class_type": "LatentUpscale", "inputs": {"samples": [key, 2], **scaling}}
