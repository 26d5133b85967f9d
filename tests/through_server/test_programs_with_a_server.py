"""The programs that start a server, at their smallest size and on the server that the other tests use."""

import contextlib

import numpy as np
import pytest
from programs import REPOSITORY, module_of, run


@pytest.fixture
def here(server, monkeypatch, capfd):
    """(program, arguments) -> what it prints."""
    import trial.server

    monkeypatch.setattr(trial.server, "ComfyServer", lambda *_, **__: contextlib.nullcontext(server))

    def printed(program: str, *arguments: str) -> str:
        run(monkeypatch, program, *arguments)
        return capfd.readouterr().out

    return printed


@pytest.mark.usefixtures("nodes_of_the_graphs")
def test_draw_graphs(here, monkeypatch, tmp_path):
    """It writes every graph into a folder without any; test_drawn_graphs.py compares them with the stored ones."""
    import draw_graphs

    monkeypatch.setattr(draw_graphs, "WORKFLOWS", tmp_path)
    printed = here("scripts/draw_graphs.py")
    written = {path.stem for path in tmp_path.iterdir()}
    assert written == set(draw_graphs.GRAPHS)
    assert printed.count(": written") == len(written)


def test_describe_nodes(here, monkeypatch, tmp_path, repository):
    """Nodes without pages and without an entry get both; test_help_pages.py compares the stored pages."""
    import describe_nodes

    contract = tmp_path / "contract.json"
    contract.write_text("{}")
    monkeypatch.setattr(describe_nodes, "CONTRACT", contract)
    monkeypatch.setattr(describe_nodes, "DOCS", tmp_path)
    here("scripts/describe_nodes.py")
    stored = repository / "tests" / "node_contract.json"
    assert contract.read_text() == stored.read_text()
    title, description, inputs = (tmp_path / "PeRFlowSampler" / "zh.md").read_text(encoding="utf-8").split("\n\n")
    assert title == "# PeRFlow 采样器 / PeRFlow Sampler"
    assert description.endswith("。")
    assert inputs.splitlines()[-1].startswith("- 求解器 `solver`：euler：")
    assert inputs.endswith(" *euler、heun、ab2；默认：euler*\n")
    page = tmp_path / "PeRFlowSampler.md"
    page.write_text(page.read_text(encoding="utf-8").replace("heun,", "").replace("A solver", "Any solver"))
    assert here("scripts/describe_nodes.py", "--check").count(": differs") == 1
    assert here("scripts/describe_nodes.py").count(": written") == 1
    assert "Any solver" in page.read_text(encoding="utf-8")
    assert "heun," in page.read_text(encoding="utf-8")


def test_draw_thumbnails(here, server, monkeypatch, tmp_path):
    """One with a picture by the small model, and one with stages."""
    import json

    import screenshots
    import shipped_graphs as graphs
    from PIL import Image

    draw_thumbnails = module_of(monkeypatch, REPOSITORY / "scripts" / "draw_thumbnails.py")
    with_picture, with_stages = "04 Small model without downloads", "27 InstaFlow one step"
    (tmp_path / f"{with_picture}.json").write_text(json.dumps(graphs.read(with_picture)), encoding="utf-8")
    monkeypatch.setattr(draw_thumbnails, "WORKFLOWS", tmp_path)
    monkeypatch.setattr(screenshots, "server", lambda comfyui: contextlib.nullcontext(server))
    here("scripts/draw_thumbnails.py", with_picture, with_stages)
    for title in (with_picture, with_stages):
        stored, drawn = Image.open(graphs.FOLDER / f"{title}.jpg"), Image.open(tmp_path / f"{title}.jpg")
        assert stored.size == drawn.size
        levels = np.subtract(*(np.asarray(picture, np.float32) for picture in (stored, drawn)))
        assert np.sqrt(np.square(levels).mean()) < 4  # a picture can differ in a few pixels between processors


def test_choose_prompts(here, files, monkeypatch):
    from trial import picture_graph

    choose_prompts = module_of(monkeypatch, REPOSITORY / "small_model" / "choose_prompts.py")
    monkeypatch.setattr(picture_graph, "MANY", 6)
    monkeypatch.setattr(choose_prompts, "small_model", lambda comfyui: files)
    monkeypatch.setattr(choose_prompts, "SUBJECTS", ("boat",))
    *ratios, chosen = here("small_model/choose_prompts.py", "--prompts", "3").splitlines()
    assert len(ratios) == 3
    assert ratios == sorted(ratios, key=lambda line: float(line.partition(" ")[0]))
    assert chosen == f"The median: {ratios[1].partition(' ')[2]}"
    assert "boat" in chosen


@pytest.fixture
def files(prompt, find, tmp_path):
    """The checkpoint and the delta of the graphs."""
    checkpoint = find(prompt, "CheckpointLoaderSimple")["inputs"]["ckpt_name"]
    return [tmp_path / name for name in (checkpoint, find(prompt, "PeRFlowApplyDelta")["inputs"]["delta_name"])]


def test_draw_gallery(here, files, monkeypatch, tmp_path):
    """A small sheet with the graphs' random models; a low-rank delta is extracted on the way."""
    from PIL import Image

    from small_model.gallery import preparing, sheets

    def small(graph, made):
        ways = (graph.base(), graph.perflow(), graph.perflow(delta=made.low_rank[4]))
        rows = {"one": [graph.sampled(model, "a boat", 1) for model in ways]}
        return sheets.Sheet("Small", "It is small.", ["base", "PeRFlow", "rank 4"], rows)

    draw_gallery = module_of(monkeypatch, REPOSITORY / "small_model" / "draw_gallery.py")
    monkeypatch.setattr(draw_gallery, "small_model", lambda comfyui: files)
    monkeypatch.setattr(draw_gallery, "FOLDER", tmp_path / "gallery")
    monkeypatch.setattr(preparing, "draw_inputs", lambda folder: None)
    monkeypatch.setattr(preparing, "RANKS", (4,))
    monkeypatch.setattr(sheets, "SHEETS", {"small": small})
    printed = here("small_model/draw_gallery.py", "--only", "small")
    assert "Difference to “base”: PeRFlow: " in printed
    assert Image.open(tmp_path / "gallery" / "small.jpg").width > 3 * 2 * 128
