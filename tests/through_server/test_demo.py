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


def test_the_sheet(server, prompt, find, monkeypatch):
    """All its cells through the server, with the graphs' random models, and what is drawn of them."""
    import demo_sheet
    import numpy as np
    from demo_graph import ENLARGED
    from PIL import Image

    few = demo_sheet.BASE_MANY._replace(steps=5)  # many take as many seconds
    columns = tuple(few if column is demo_sheet.BASE_MANY else column for column in demo_sheet.COLUMNS)
    monkeypatch.setattr(demo_sheet, "COLUMNS", columns)
    monkeypatch.setattr(demo_sheet, "BASE_MANY", few)
    find(prompt, "EmptyLatentImage")["inputs"] |= {"width": 64, "height": 64}
    texts = ["a lighthouse", "a boat"]
    loaders = ("CheckpointLoaderSimple", "ckpt_name"), ("PeRFlowApplyDelta", "delta_name")
    files = [find(prompt, kind)["inputs"][name] for kind, name in loaders]
    pictures = demo_sheet.run(server, demo_sheet.graph(*files, texts, "", (64, 64), (3.0, 1.0), seed=5), len(texts))
    assert all(picture.size == (64, 64) for row in pictures for picture in row)
    assert len({picture.tobytes() for row in pictures for picture in row}) == 2 * 4
    sheet = np.asarray(demo_sheet.draw(pictures, [column.title for column in columns], texts, ENLARGED))
    gap, side = demo_sheet.SENTENCES.gap, 64 * ENLARGED
    last = np.asarray(pictures[1][3].resize((side, side), Image.Resampling.LANCZOS))
    assert np.array_equal(sheet[-gap - side : -gap, -gap - side : -gap], last)
    assert (sheet[: demo_sheet.SENTENCES.top] < 128).any()  # titles
    assert "base, 4 steps:" in demo_sheet.description(pictures)


def test_the_sheet_compares_the_same_noise():
    """The base model is sampled by stock nodes, PeRFlow by the pack's, each row from one seed."""
    import demo_sheet

    cells = demo_sheet.graph("base", "delta", ["a", "b"], "", (128, 128), (3.0, 1.0), seed=5)
    for r, c in ((r, c) for r in range(2) for c in range(4)):
        sampler, steps = cells[f"{r} {c} sample"], demo_sheet.COLUMNS[c].steps
        if demo_sheet.COLUMNS[c].perflow:
            assert cells[sampler["inputs"]["noise"][0]]["inputs"]["noise_seed"] == 5 + r
            assert cells[sampler["inputs"]["sigmas"][0]]["inputs"]["steps"] == steps
            assert (
                cells[cells[sampler["inputs"]["guider"][0]]["inputs"]["model"][0]]["class_type"] == "PeRFlowApplyDelta"
            )
        else:
            inputs = sampler["inputs"]
            assert (inputs["seed"], inputs["steps"], inputs["sampler_name"]) == (5 + r, steps, "euler")
            assert cells[inputs["model"][0]]["class_type"] == "CheckpointLoaderSimple"


def test_the_sheets_first_row_is_the_demos(prompt, find):
    import demo_sheet

    cells, texts = demo_sheet.graph_like(prompt, 3.0)
    guider = find(prompt, "CFGGuider")["inputs"]
    assert cells["0"]["inputs"]["text"] == texts[0] == prompt[guider["positive"][0]]["inputs"]["text"]
    assert cells["negative"]["inputs"]["text"] == prompt[guider["negative"][0]]["inputs"]["text"]
    assert cells["0 guider"]["inputs"]["cfg"] == guider["cfg"]
    assert cells["0 noise"]["inputs"]["noise_seed"] == find(prompt, "RandomNoise")["inputs"]["noise_seed"]
    assert len(set(texts)) == len(demo_sheet.PROMPTS)


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
