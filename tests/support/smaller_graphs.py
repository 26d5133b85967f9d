"""A graph at a size for tests: small pictures, few steps, and other nodes for what has one size, a large one."""

import copy

import stored_words
from shipped_graphs import TRIPOSR_INTERFACE, Json

SMALL = 128  # pixels
SMALLER = 16  # a picture of 512 x 512 becomes one of 32 x 32
_LENGTHS = {"width", "height", "target_width", "target_height", "crop_w", "crop_h", "x", "y", "largest_size"}
_MOST: dict[str, dict[str, int]] = {
    "KSampler": {"steps": 6},
    "EmptyLatentImage": {"batch_size": 4},
    "EmptySD3LatentImage": {"batch_size": 4},
    "EmptyHunyuanLatentVideo": {"length": 5},
    "InstaFlowNoise": {"frames": 4},
    "PeRFlowTrainDelta": {"steps": 2, "batch_size": 2, "rank": 4, "solving_steps": 1},
    "VAEDecodeHunyuan3D": {"octree_resolution": 16},
    "TripoSplatPreprocessImage": {"size": 256},
    "VAEDecodeTripoSplat": {"num_gaussians": 32768},
    "SplatToMesh": {"resolution": 64, "kernel": 1, "min_component": 0},
}


def smaller(prompt: Json) -> Json:
    """The prompt with every length in pixels divided by SMALLER, and what is long or fine cut short.

    Pictures of 128 x 128 stay as they are.
    """
    prompt = copy.deepcopy(prompt)
    divisor = SMALLER if max(map(max, asked_sizes(prompt)), default=SMALL + 1) > SMALL else 1
    for change in _CHANGES:
        change(prompt)
    for node in prompt.values():
        for name, most in _MOST.get(node["class_type"], {}).items():
            node["inputs"][name] = min(node["inputs"][name], most)
        for name, value in node["inputs"].items():
            if name in _LENGTHS and isinstance(value, int):
                node["inputs"][name] = value // divisor
    for node in prompt.values():
        if node["class_type"] == "EmptySD3LatentImage":  # a model of patches rounds up
            node["inputs"] |= {name: node["inputs"][name] // 16 * 16 for name in ("width", "height")}
    return prompt


def sizes(prompt: Json) -> set[tuple[int, int]]:
    """Every width and height that a node of the prompt asks for, and what they become by a node that scales."""
    asked = asked_sizes(prompt)
    factors = [node["inputs"]["scale_by"] for node in prompt.values() if node["class_type"] == "ImageScaleBy"]
    return asked | {(round(width * by), round(height * by)) for width, height in asked for by in factors}


def asked_sizes(prompt: Json) -> set[tuple[int, int]]:
    inputs = [node["inputs"] for node in prompt.values()]
    return {(values["width"], values["height"]) for values in inputs if {"width", "height"} <= values.keys()}


def _remove_background_simply(prompt: Json) -> None:
    """BiRefNet has one size, which takes minutes on a CPU: a mask comes from the picture itself."""
    for node in list(prompt.values()):
        if node["class_type"] == "RemoveBackground":
            remover, _ = node["inputs"].pop("bg_removal_model")
            del prompt[remover]
            node |= {"class_type": "ImageToMask", "inputs": node["inputs"] | {"channel": "red"}}


def _find_edges_in_less(prompt: Json) -> None:
    """Canny follows edges pixel by pixel, for half a minute in a whole photo."""
    for key, node in list(prompt.items()):
        if node["class_type"] == "Canny":
            inputs = {"image": node["inputs"]["image"], "upscale_method": "area", "scale_by": 1 / SMALLER}
            prompt[f"{key}-less"] = {"class_type": "ImageScaleBy", "inputs": inputs}
            node["inputs"]["image"] = [f"{key}-less", 0]


def _shrink_wonder3d(prompt: Json) -> None:
    """Twelve pictures of 32 x 32 for 256 x 256, since the VAE has its real width.

    The small SD1.5 has one level and the small Wonder3D all four, so the delta of the one does not fit the other, which
    gets the sampling alone.
    """
    for key, node in list(prompt.items()):
        if node["class_type"] == "Wonder3DLoader":
            (delta,) = [other for other in prompt.values() if other["inputs"].get("model") == [key, 0]]
            sampling = {"prediction_type": "auto", "windows": 4, "align_steps": True}
            delta |= {"class_type": "PeRFlowModelSampling", "inputs": {"model": [key, 0], **sampling}}
        if node["class_type"] == "Wonder3DConditioning":
            for other in list(prompt.values()):
                if other["inputs"].get("latent_image") == [key, 2]:
                    other["inputs"]["latent_image"] = ["smaller", 0]
            scaling = {"upscale_method": "nearest-exact", "scale_by": 1 / 8}
            prompt["smaller"] = {"class_type": "LatentUpscaleBy", "inputs": {"samples": [key, 2], **scaling}}


def _shrink_hunyuan3d(prompt: Json) -> None:
    """64 places instead of 3072, in 2 steps; two of four views, since each takes an image encoder of the real size."""
    for node in prompt.values():
        if node["class_type"] == "Hunyuan3Dv2ConditioningMultiView":
            del node["inputs"]["back"], node["inputs"]["right"]
        latent = prompt.get(node["inputs"].get("latent_image", [""])[0], {})
        if latent.get("class_type") == "EmptyLatentHunyuan3Dv2":
            latent["inputs"]["resolution"], node["inputs"]["steps"] = 64, 2


def _skip_triposplat(prompt: Json) -> None:
    """Its transformer and its image encoder have one size, for GPUs: an empty latent goes to the decoder."""
    for node in list(prompt.values()):
        if node["class_type"] == "VAEDecodeTripoSplat":
            # The only stock latent of this form: 64 tokens of 16 channels, where TripoSplat has 8192.
            inputs = {"resolution": 16, "batch_size": 1}
            prompt["nothing"] = {"class_type": "EmptyLatentHunyuan3Dv2", "inputs": inputs}
            node["inputs"]["samples"] = ["nothing", 0]


def _store_words(prompt: Json) -> None:
    """Text encoders of flow models have one size, for GPUs: what they say comes from a file."""
    for key, node in list(prompt.items()):
        kind = node["inputs"].get("type")
        if node["class_type"] in ("CLIPLoader", "DualCLIPLoader") and kind in stored_words.WIDTHS:
            del prompt[key]
            for encoder, other in list(prompt.items()):
                if other["inputs"].get("clip") == [key, 0]:
                    inputs = {"folder_name": stored_words.folder(kind)}
                    prompt[encoder] = {"class_type": "LoadTrainingDataset", "inputs": inputs}
                    _take_output(prompt, encoder, 1)


def _take_output(prompt: Json, key: str, number: int) -> None:
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if value == [key, 0]:
                node["inputs"][name] = [key, number]


def _skip_triposr(prompt: Json) -> None:
    """Its pack is not here, and gets the description of its image encoder from the network."""
    for key, node in list(prompt.items()):
        if node["class_type"] in TRIPOSR_INTERFACE:
            del prompt[key]


_CHANGES = (
    _remove_background_simply,
    _find_edges_in_less,
    _shrink_wonder3d,
    _shrink_hunyuan3d,
    _skip_triposplat,
    _store_words,
    _skip_triposr,
)
