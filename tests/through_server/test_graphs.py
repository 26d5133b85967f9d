"""Every graph that ships, through a real server: converted, validated, and run to its picture with small models."""

import io
import re
from pathlib import Path

import av
import numpy as np
import pytest
import shipped_graphs as graphs
import stored_words
from model_files import read_glb, splats_in
from PIL import Image, ImageSequence
from smaller_graphs import sizes, smaller
from trial.small_models.tables import TABLES

# What our nodes say below their widgets.
TEXTS = {
    "PeRFlowApplyDelta": r"[24] steps or more, CFG (4\.5 to 7\.5|1 to 2\.5|as in its training|as without the delta)\n"
    r"(SD1\.5 difference, \d+ tensors, .+\n(diff_eps|ddim_eps), 4 windows"
    r"|unknown low-rank difference of rank \d+, \d+ tensors, .+\nflow, [24] windows: sigma .+)",
    "PeRFlowModelSampling": r"(velocity|ddim_eps|diff_eps), 4 windows(\nThis model predicts noise.*)?"
    r"|flow, 2 windows: sigma .+\nThis is a part of the path.+",
    "PeRFlowWindowSchedule": r"[\d.]+( [\d.|]+)*(\nThe last step ends at sigma 0\.875, where another model goes on\.)?",
    "PeRFlowExtractDelta": r".+\.safetensors, .+\nkept [\d.]+ % of the difference.*",
    "PeRFlowTrainDelta": r".+\.safetensors, \d+ MB, 2 steps, .+\nloss .+ in the last tenth\n4 pictures.*",
    "PCMPhaseSchedule": r"[\d.]+( [\d.]+)*\n.+",
    "InstaFlowModelSampling": r"Rectified flow: .+",
    "PeRFlowPromptToPrompt": r"(Edit \d+: .+\n?)+",
}
# A wrong layout shows in the log: tensors that were not found, or not used.
TROUBLE = re.compile(
    r"lora key not loaded|SHAPE MISMATCH|invalid value|\b(missing|unexpected|leftover|left over)\b.*(keys|:)",
    re.IGNORECASE,
)
# diffusers leaves out the last layer of SD2.x's text model, which is not used; ComfyUI says so.
EXPECTED = re.compile(r"clip missing: \['text_model\.encoder\.layers\.23\.")


def large_models(title):
    loaders = [
        node for node in graphs.read(title)["nodes"] if node["type"] in ("CheckpointLoaderSimple", "Wonder3DLoader")
    ]
    return sorted(node["widgets_values"][0] for node in loaders)


# Those with the same models one after another, so that the server keeps what they have in common.
@pytest.fixture(params=sorted(graphs.TITLES, key=large_models))
def graph(request, object_info):
    graph = graphs.read(request.param)
    if lacking := graphs.lacking(graph, object_info):
        assert graphs.says_which_comfyui(graph)
        pytest.skip(f"This ComfyUI has no {', '.join(sorted(lacking))}, as the graph's note says.")
    return graph


@pytest.fixture(scope="session")
def complete_info(object_info):
    files = [name.removeprefix("ipadapter/") for name in TABLES["graphs"](Path()) if name.startswith("ipadapter/")]
    return graphs.with_triposr(graphs.with_ipadapter_plus(object_info, files))


@pytest.fixture
def prompt(graph, complete_info):
    from trial.server import to_api

    return to_api(graph, complete_info)


def test_valid(prompt, complete_info):
    """Every value is one that its node takes, every input that has to be there is, and the types of links agree."""
    from comfy_cli.cql.engine import Graph

    answer = Graph.from_object_info(complete_info).validate_workflow(prompt)
    assert not answer["errors"]
    assert not answer["warnings"]
    assert answer["valid"]


def test_sides_of_hunyuan3d(complete_info):
    """Its "left" is where the object looks to the left: Wonder3D's camera is then at the right."""
    from trial.server import to_api

    from perflow_core.views.twelve_views import VIEWS

    title = "37 Text to 3D from Wonder3D views"
    if graphs.lacking(graphs.read(title), complete_info):
        pytest.skip("This ComfyUI lacks nodes of it, as the graph's note says.")
    prompt = to_api(graphs.read(title), complete_info)
    (seen,) = [node for node in prompt.values() if node["class_type"] == "Hunyuan3Dv2ConditioningMultiView"]

    def view(side):
        encoder = prompt[seen["inputs"][side][0]]
        return VIEWS[prompt[encoder["inputs"]["image"][0]]["inputs"]["batch_index"]]

    assert [view(side) for side in ("front", "left", "back", "right")] == ["front", "right", "back", "left"]


@pytest.fixture(scope="module")
def fresh_server(server):
    """What it keeps from here on was made, and checked, by a graph of this file."""
    server.forget()
    stored_words.write(server.base)
    return server


@pytest.fixture
def server_for(request):
    """The server that has the nodes of a graph."""

    def find(graph):
        return request.getfixturevalue("ipadapter_server" if graphs.needs_ipadapter_plus(graph) else "fresh_server")

    return find


def test_picture(graph, complete_info, server_for):
    """With the delta in use that is bypassed until it is trained."""
    from trial.server import to_api

    server = server_for(graph)
    prompt = smaller(to_api(graphs.without_bypass(graph, "PeRFlowApplyDelta"), complete_info))
    start = len(server.log.read_text(encoding="utf-8"))
    history = server.run(prompt)
    outputs = history["outputs"]
    assert_pictures(server, prompt, outputs)
    assert_models(server, prompt, outputs)
    assert_texts(prompt, outputs, kept_from_before(history))
    lines = server.log.read_text(encoding="utf-8")[start:].splitlines()
    assert not [line for line in lines if TROUBLE.search(line) and not EXPECTED.search(line)]


def test_pictures_of_ones_own(server_for, object_info):
    """As the note of the training graph says: the group 2b in use, its latents in place of the empty ones."""
    from trial.server import to_api

    kinds = ("LoadImageDataSetFromFolder", "ImageScale", "VAEEncode")
    graph = graphs.without_bypass(graphs.read("18 Train a delta of a flow model"), *kinds)
    server = server_for(graph)
    (loader,) = [node for node in graph["nodes"] if node["type"] == "LoadImageDataSetFromFolder"]
    folder = server.base / "input" / loader["widgets_values"][0]
    folder.mkdir()
    for i, size in enumerate(((40, 50), (64, 30), (90, 90))):
        Image.new("RGB", size, (60 * i, 90, 200)).save(folder / f"{i}.png")
    prompt = smaller(to_api(graph, object_info))
    (trainer,) = [key for key, node in prompt.items() if node["class_type"] == "PeRFlowTrainDelta"]
    (encoder,) = [key for key, node in prompt.items() if node["class_type"] == "VAEEncode"]
    prompt[trainer]["inputs"]["latents"] = [encoder, 0]
    prompt = {key: node for key, node in prompt.items() if node["class_type"] not in ("SaveImage", "PreviewImage")}
    (text,) = server.run(prompt)["outputs"][trainer]["text"]
    assert "\n3 pictures\nflow, 4 windows" in text


def assert_pictures(server, prompt, outputs):
    """The pictures that the graph saves are there, as large as it says, and not flat."""
    kinds = ("SaveImage", "SaveAnimatedWEBP", "SaveVideo")
    savers = [name for name, node in prompt.items() if node["class_type"] in kinds]
    expected = sizes(prompt)
    for saver in savers:
        for image in outputs[saver]["images"]:
            for picture in pictures_in(server.image(**image), image["filename"]):
                assert picture.size in expected
                assert np.asarray(picture).std() > 5
    assert savers or any(node["class_type"] == "PeRFlowExtractDelta" for node in prompt.values())


def pictures_in(content, name):
    """The picture, or every frame of a film."""
    if name.endswith(".mp4"):
        with av.open(io.BytesIO(content)) as film:
            return [frame.to_image() for frame in film.decode(video=0)]
    return [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(io.BytesIO(content)))]


def assert_models(server, prompt, outputs):
    """The 3D files that the graph saves are there, and have a body in them."""
    for saver in [name for name, node in prompt.items() if node["class_type"] == "SaveGLB"]:
        (saved,) = outputs[saver]["3d"]
        content = server.image(**saved)
        if saved["filename"].endswith(".spz"):
            assert splats_in(content) == prompt_value(prompt, "VAEDecodeTripoSplat", "num_gaussians")
            continue
        vertices, triangles = read_glb(content)
        assert np.isfinite(vertices).all()
        assert np.ptp(vertices, axis=0).min() > 0.1
        assert triangles.max() < len(vertices)
        assert (np.diff(np.sort(triangles), axis=1) > 0).all()


def prompt_value(prompt, kind, name):
    (node,) = [node for node in prompt.values() if node["class_type"] == kind]
    return node["inputs"][name]


def kept_from_before(history):
    """The nodes that did not run: the same ones ran in the graph before, as when a user opens one after another."""
    messages = dict(history["status"]["messages"])
    return set(messages["execution_cached"]["nodes"])


def assert_texts(prompt, outputs, kept):
    """Our nodes say what they did, once."""
    for name, node in prompt.items():
        if node["class_type"] in TEXTS and name not in kept:
            (text,) = outputs[name]["text"]
            assert re.fullmatch(TEXTS[node["class_type"]], text, re.DOTALL)
