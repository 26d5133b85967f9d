"""The first of the two commands, as a user types it; the environment is the one the tests run in."""

import subprocess
import sys
from pathlib import Path

import pytest


def demo(repository, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "scripts" / "demo.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400)


def test_demo(repository, tmp_path):
    from PIL import Image

    (tmp_path / "perflow-demo.png").write_bytes(b"mine")
    result = demo(repository, "--size", "64x128", "--steps", "6", "--seed", "3", "--no-sheet", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    path = Path(lines[-1])
    assert Image.open(path).size == (3 * 64, 3 * 128)  # enlarged, since the model draws small pictures
    assert "prompt" in Image.open(path).info  # ComfyUI opens the graph from it
    assert path.parent == tmp_path
    assert (tmp_path / "perflow-demo.png").read_bytes() == b"mine"  # never over another file
    assert any("1000 875 | 750 625 | 500 | 250" in line for line in lines)
    assert any("s per step" in line for line in lines)
    assert any("drawings" in line for line in lines)


def test_the_sheet(server, prompt, find, monkeypatch, capsys):
    """All its cells through the server, with the graphs' random models, and what is drawn of them."""
    import demo_graph
    import numpy as np
    from demo_graph import ENLARGED
    from PIL import Image
    from sampled_sheet import SENTENCES

    few = [(model, min(steps, 5 + c)) for c, (model, steps) in enumerate(demo_graph.COLUMNS)]  # many take long
    monkeypatch.setattr(demo_graph, "COLUMNS", few)
    find(prompt, "EmptyLatentImage")["inputs"] |= {"width": 32, "height": 32}
    graph, _, _ = demo_graph.graph_like(prompt)
    sheet = demo_graph.sheet_of(graph, ["a lighthouse", "a boat"], 3.0, 1.0)
    pictures = demo_graph.sampled(server, graph, sheet)
    assert capsys.readouterr().out.count("  row ") == 2 * 4
    assert all(picture.size == (32, 32) for row in pictures for picture in row)
    assert len({picture.tobytes() for row in pictures for picture in row}) == 2 * 4
    drawn = np.asarray(sheet.drawn(pictures, ENLARGED))
    gap, side = SENTENCES.gap, 32 * ENLARGED
    last = np.asarray(pictures[1][3].resize((side, side), Image.Resampling.LANCZOS))
    assert np.array_equal(drawn[-gap - side : -gap, -gap - side : -gap], last)
    assert (drawn[: SENTENCES.top] < 128).any()  # titles
    assert "base, 4 steps:" in sheet.differences(pictures)


def test_the_sheet_compares_the_same_noise():
    """The base model is sampled by stock nodes, PeRFlow by the pack's, each row from one seed."""
    import demo_graph
    from trial.picture_graph import PictureGraph

    graph = PictureGraph("base", "delta", seed=5)
    rows = demo_graph.sheet_of(graph, ["a", "b"], 3.0, 1.0).rows.values()
    for r, row in enumerate(rows):
        for (model, steps), picture in zip(demo_graph.COLUMNS, row, strict=True):
            inputs = graph.nodes[graph.nodes[picture[0]]["inputs"]["samples"][0]]["inputs"]
            if model == "PeRFlow":
                noise, sigmas, guider = (
                    graph.nodes[inputs[name][0]]["inputs"] for name in ("noise", "sigmas", "guider")
                )
                assert (noise["noise_seed"], sigmas["steps"], guider["cfg"]) == (5 + r, steps, 1.0)
                assert graph.nodes[guider["model"][0]]["class_type"] == "PeRFlowApplyDelta"
            else:
                found = (inputs["seed"], inputs["steps"], inputs["cfg"], inputs["sampler_name"])
                assert found == (5 + r, steps, 3.0, "euler")
                assert graph.nodes[inputs["model"][0]]["class_type"] == "CheckpointLoaderSimple"


def test_the_sheets_first_row_is_the_demos(prompt, find):
    import demo_graph

    graph, texts, cfg = demo_graph.graph_like(prompt)
    demo_graph.sheet_of(graph, texts, 3.0, cfg)
    guider = find(prompt, "CFGGuider")["inputs"]
    assert texts[0] == prompt[guider["positive"][0]]["inputs"]["text"]
    assert len(set(texts)) == len(demo_graph.PROMPTS)
    assert cfg == guider["cfg"]
    assert find(prompt, "RandomNoise")["inputs"] in [node["inputs"] for node in graph.nodes.values()]
    written = {node["inputs"]["text"] for node in graph.nodes.values() if node["class_type"] == "CLIPTextEncode"}
    assert written == {*texts, prompt[guider["negative"][0]]["inputs"]["text"]}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "100"], "--size is 100: it must be N or WxH with multiples of 8"),
        (["--checkpoint", "gone.safetensors", "--delta", "gone.safetensors"], "which is not a file"),
        (["--delta", "x.safetensors"], "both files are needed, or neither"),
        (["--steps", "0"], "--steps is 0"),
    ],
)
def test_bad_options_are_one_sentence(repository, tmp_path, arguments, sentence):
    result = demo(repository, *arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
