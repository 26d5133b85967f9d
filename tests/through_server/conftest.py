"""A headless ComfyUI, started as its users start it, with the pack and small models under the graph's names."""

import copy
import json

import pytest

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
DELTA = "perflow-sd15-delta-v0-1.safetensors"


@pytest.fixture(scope="session")
def server(comfyui_path, tmp_path_factory):
    import small_models
    from comfy_server import ComfyServer

    base = tmp_path_factory.mktemp("server")
    checkpoint = small_models.make_checkpoint(
        base / "models" / "checkpoints" / CHECKPOINT, unet_config=small_models.SD15_TINY
    )
    small_models.make_delta(base / "models" / "perflow" / DELTA, checkpoint)
    with ComfyServer(comfyui_path, base) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(server):
    return server.object_info()


@pytest.fixture(scope="session")
def repository():
    from environment import PACK

    return PACK


@pytest.fixture(scope="session")
def workflow(repository):
    return json.loads((repository / "workflows" / "PeRFlow SD1.5 text to image.json").read_text())


@pytest.fixture
def prompt(workflow, object_info):
    """The graph in API form, at a size for tests."""
    from comfy_server import to_api

    prompt = to_api(copy.deepcopy(workflow), object_info)
    node(prompt, "EmptyLatentImage")["inputs"] |= {"width": 128, "height": 128}
    return prompt


def node(prompt, kind):
    (found,) = [node for node in prompt.values() if node["class_type"] == kind]
    return found


@pytest.fixture
def find():
    """(prompt, node type) -> the one node of that type."""
    return node


@pytest.fixture
def find_id():
    """(prompt, node type) -> the id of the one node of that type."""
    return lambda prompt, kind: next(key for key, node in prompt.items() if node["class_type"] == kind)


@pytest.fixture
def picture(server, find_id):
    """Run a prompt; the saved picture as an array."""
    import io

    import numpy as np
    from PIL import Image

    def run(prompt, on_event=lambda kind, data: None):
        outputs = server.run(prompt, on_event)["outputs"]
        (image,) = outputs[find_id(prompt, "SaveImage")]["images"]
        return np.asarray(Image.open(io.BytesIO(server.image(**image)))).astype(float), outputs

    return run
