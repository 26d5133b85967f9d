"""Each node's text goes to that node of the graph that runs, though ComfyUI's cache keeps what other graphs gave."""

import contextlib

import pytest
import websocket

TEXT = (3).to_bytes(4, "big")  # how a message with a text for a node begins
DELTA = "perflow-sd15-delta-v0-1.safetensors"
BASE = {
    "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"}},
    "prompt": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": ""}},
    "image": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0xC08040}},
    "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["image", 0], "vae": ["model", 2]}},
}
# What stands in for an input of this type, of a node whose widgets keep their defaults: node and output.
SOURCES = {"MODEL": ["model", 0], "CLIP": ["model", 1], "LATENT": ["latent", 0], "CONDITIONING": ["prompt", 0]}
INPUTS = {
    "PeRFlowApplyDelta": {"delta_name": DELTA},
    "PeRFlowWindowSchedule": {"model": ["PeRFlowApplyDelta", 0]},
    "PeRFlowPromptToPrompt": {"source": "a red fox", "edited": "a blue fox"},
    "PeRFlowExtractDelta": {"model_perflow": ["PeRFlowApplyDelta", 0], "rank": 1},
    "PeRFlowTrainDelta": {"steps": 1, "batch_size": 1, "rank": 1, "solving_steps": 1, "gradient_checkpointing": False},
}


@pytest.fixture(scope="module")
def that_show_text(object_info):
    """The types of our nodes that show text, as the server describes them."""
    from trial.installed_pack import FOLDER

    return {
        kind
        for kind, info in object_info.items()
        if info["python_module"].endswith(f".{FOLDER}") and "unique_id" in info["input"].get("hidden", {})
    }


@pytest.fixture
def add(object_info):
    """Add a node with its defaults to a graph, and Preview Any for what it gives, so that it runs."""

    def add(graph, kind, key=None, **inputs):
        key = key or kind
        given = INPUTS.get(kind, {}) | inputs
        for name, (type_, *options) in object_info[kind]["input"]["required"].items():
            if name not in given:
                given[name] = SOURCES.get(type_) or options[0]["default"]
        graph[key] = {"class_type": kind, "inputs": given}
        graph[f"{key} shown"] = {"class_type": "PreviewAny", "inputs": {"source": [key, 0]}}

    return add


@pytest.fixture
def add_ksampler(add):
    """Add one whose steps are moved, which the node that gave the MODEL tells."""
    common = {"sampler_name": "euler", "scheduler": "karras", "cfg": 1.0, "seed": 1}
    return lambda graph, model, steps: add(graph, "KSampler", f"{steps} steps", model=[model, 0], steps=steps, **common)


def with_rotated_ids(graph):
    """The same graph, in which each node has the id that another one had."""
    keys = list(graph)
    ids = dict(zip(keys, keys[1:] + keys[:1], strict=True))

    def link(value):
        return [ids[value[0]], value[1]] if isinstance(value, list) else value

    return {
        ids[key]: node | {"inputs": {name: link(value) for name, value in node["inputs"].items()}}
        for key, node in graph.items()
    }


def run(server, graph):
    """Which text the server sends last to which id."""
    sent = {}

    def hear(kind, data):
        if kind == "progress_text":
            sent[data["node"]] = data["text"]

    server.run(graph, hear)
    return sent


def test_two_graphs_in_a_row(server, add, that_show_text):
    """The second has everything in common with the first but the ids, and tells the same on its own nodes."""
    server.forget()
    first = dict(BASE)
    for kind in that_show_text:
        add(first, kind)
    for graph in (first, with_rotated_ids(first)):
        sent = run(server, graph)
        assert sorted(graph[key]["class_type"] for key in sent) == sorted(that_show_text)


@pytest.mark.parametrize("kind", ["PeRFlowApplyDelta", "PeRFlowModelSampling", "InstaFlowModelSampling"])
def test_steps_go_to_the_node_of_the_graph_that_runs(server, add, add_ksampler, kind):
    """The MODEL is the same one but for its node's id."""
    server.forget()
    first = dict(BASE)
    add(first, kind)
    add_ksampler(first, kind, 2)
    for graph in (first, with_rotated_ids(first)):
        ((key, text),) = run(server, graph).items()
        assert graph[key]["class_type"] == kind
        assert text.splitlines()[-1].startswith("steps ")


def test_two_equal_nodes_in_one_graph(server, add, add_ksampler):
    """Each tells the steps of its own sampler."""
    server.forget()
    graph = dict(BASE)
    for steps in (2, 3):
        add(graph, "PeRFlowApplyDelta", f"for {steps}")
        add_ksampler(graph, f"for {steps}", steps)
    sent = run(server, graph)
    assert ": 1000 | 500. " in sent["for 2"]
    assert ": 1000 | 750 | 500. " in sent["for 3"]


def test_no_other_page_is_told(server, add):
    """It has another graph, in which the ids are other nodes'."""
    server.forget()
    graph = dict(BASE)
    add(graph, "PeRFlowApplyDelta")
    address = f"ws://127.0.0.1:{server.port}/ws?clientId=another"
    with contextlib.closing(websocket.create_connection(address, timeout=5, http_no_proxy=["*"])) as other:
        assert list(run(server, graph)) == ["PeRFlowApplyDelta"]
        other.ping()  # its answer comes after all that was sent
        while True:
            operation, message = other.recv_data(control_frame=True)
            if operation == websocket.ABNF.OPCODE_PONG:
                break
            assert not message.startswith(TEXT)
