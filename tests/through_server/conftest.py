"""The first graph in API form, and what finds and shows its parts."""

import copy
import io

import environment
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def workflow():
    import shipped_graphs as graphs

    return graphs.read("17 SD1.5 all nodes")


@pytest.fixture(scope="session")
def nodes_of_the_graphs(server, object_info):
    """The interfaces that the graphs are drawn from; on another ComfyUI the test is left out."""
    if server.get("/system_stats")["system"]["comfyui_version"] != environment.DEFAULT:
        pytest.skip(f"The graphs are drawn from the nodes of ComfyUI {environment.DEFAULT}.")
    return object_info


@pytest.fixture
def prompt(workflow, object_info):
    """The graph in API form, at a size for tests."""
    from trial.server import to_api

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
    """Run a prompt; the saved picture as an array, and all outputs."""

    def run(prompt, on_event=lambda kind, data: None, server=server):
        outputs = server.run(prompt, on_event)["outputs"]
        (image,) = outputs[find_id(prompt, "SaveImage")]["images"]
        return pixels(server, image), outputs

    return run


@pytest.fixture
def pictures(find_id):
    """Run a prompt on a server; the saved pictures of a batch as one array."""

    def run(prompt, server):
        images = server.run(prompt)["outputs"][find_id(prompt, "SaveImage")]["images"]
        return np.stack([pixels(server, image) for image in images])

    return run


def pixels(server, image):
    return np.asarray(Image.open(io.BytesIO(server.image(**image)))).astype(float)
