"""The help pages: their inputs are the schemas', they say the same in every language, and what they say is true."""

import ast
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from describe_nodes import page as described_page
from describe_nodes import page_file
from environment import UserError
from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DOCS = REPOSITORY / "web" / "docs"
NODES = sorted(path.stem for path in DOCS.glob("*.md"))
TRANSLATIONS = ["zh", "ja"]
LANGUAGES = ["en", *TRANSLATIONS]
QUOTED = {"en": "the node says", "zh": "节点的提示", "ja": "ノードの表示"}  # heads a column of the node's own words
NUMBER = re.compile(r"(?<![A-Za-z0-9.])-?[0-9]+(?:\.[0-9]+)?(?![A-Za-z0-9])")
HAN_OR_KANA = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
PICTURE = re.compile(r"!\[[^]]+\]\(([^)]+)\)")
FILE_LIMIT = 100_000  # bytes of a picture


def page(node: str, language: str) -> str:
    return page_file(node, language).read_text(encoding="utf-8")


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, the heading first, the line below it left out."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
            found[-1].append([cell.strip().replace("\\|", "|") for cell in cells])
        elif found[-1]:
            found.append([])
    return [[rows[0], *rows[2:]] for rows in found if rows]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_node_has_its_pages(comfyui):
    assert sorted(node.GET_SCHEMA().node_id for node in comfyui.module("nodes").NODES) == NODES
    pages = {str(path.relative_to(DOCS)).replace("\\", "/") for path in DOCS.rglob("*.md")}
    translated = {f"{node}/{language}.md" for node in NODES for language in TRANSLATIONS}
    assert pages == {f"{node}.md" for node in NODES} | translated


@pytest.mark.parametrize(
    ("node", "name", "takes"),
    [
        ("PeRFlowApplyDelta", "model", "MODEL"),
        ("PeRFlowApplyDelta", "delta_name", "a file"),
        ("PeRFlowApplyDelta", "strength", "-10 to 10; default 1"),
        ("PeRFlowApplyDelta", "prediction_type", "auto, diff_eps, ddim_eps, velocity; default auto"),
        ("PeRFlowApplyDelta", "partial", "on, off; default off; advanced input"),
        ("PeRFlowTrainDelta", "steps", "1 to 1000000; default 1000"),
        ("PeRFlowTrainDelta", "learning_rate", "0.0000001 to 1; default 0.0001"),
        ("PeRFlowTrainDelta", "gradient_checkpointing", "on, off; default on"),
        ("PeRFlowTrainDelta", "seed", "0 to 2^64 - 1; default 0"),
        ("PeRFlowTrainDelta", "filename_prefix", "text; default trained"),
        ("PeRFlowTrainDelta", "negative", "CONDITIONING; optional"),
        ("PeRFlowTrainDelta", "resume_from", "none or a file; default none"),
        ("PeRFlowPromptToPrompt", "blend", "text; default empty"),
    ],
)
def test_what_an_input_takes(node, name, takes):
    _, inputs = page(node, "en").split("**Inputs**\n")
    (line,) = [line for line in inputs.split("\n\n")[0].splitlines() if line.startswith(f"- `{name}`: ")]
    assert line.endswith(f" *{takes}*")


def test_an_input_without_a_translation_is_told(comfyui, monkeypatch, tmp_path):
    (tmp_path / "ja").mkdir()
    (tmp_path / "ja" / "nodeDefs.json").write_text("{}")
    monkeypatch.setattr("describe_nodes.LOCALES", tmp_path)
    with pytest.raises(UserError, match="no text for solver of PeRFlowSampler"):
        described_page("PeRFlowSampler", comfyui.nodes["PeRFlowSampler"].GET_NODE_INFO_V1(), "ja")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
class TestEveryPage:
    def test_title_and_inputs_are_the_schemas(self, comfyui, node, language):
        """`python scripts/describe_nodes.py` writes them."""
        info = comfyui.nodes[node].GET_NODE_INFO_V1()
        assert page(node, language) == described_page(node, info, language)

    def test_quotes_are_the_nodes_own_words(self, node, language):
        for heading, *rows in tables(page(node, language)):
            if heading[0] == QUOTED[language]:
                for quote, *_ in rows:
                    assert all(part in words_in_the_source() for part in pieces(quote)), quote

    def test_pictures(self, node, language):
        for name in PICTURE.findall(page(node, language)):
            assert (DOCS / name).stat().st_size < FILE_LIMIT  # the page resolves it from docs/, in every language


@pytest.mark.parametrize("language", TRANSLATIONS)
@pytest.mark.parametrize("node", NODES)
class TestTranslations:
    def test_the_same_tables(self, node, language):
        english, translated = tables(page(node, "en")), tables(page(node, language))
        assert [(len(rows), len(rows[0])) for rows in translated] == [(len(rows), len(rows[0])) for rows in english]
        for ours, theirs in zip(english, translated, strict=True):
            for row, other in zip(ours, theirs, strict=True):
                assert set(NUMBER.findall(" ".join(row))) <= set(NUMBER.findall(" ".join(other))), row
            if ours[0][0] == QUOTED["en"]:
                assert theirs[0][0] == QUOTED[language]
                assert [row[0] for row in theirs[1:]] == [row[0] for row in ours[1:]]

    def test_the_same_parts(self, node, language):
        english, translated = page(node, "en"), page(node, language)
        assert len(re.findall(r"^\*\*", translated, re.M)) == len(re.findall(r"^\*\*", english, re.M))
        assert PICTURE.findall(translated) == PICTURE.findall(english)
        assert set(code(english)) <= set(code(translated))
        assert set(NUMBER.findall(english)) <= set(NUMBER.findall(translated))

    def test_every_paragraph_is_translated(self, node, language):
        for line in page(node, language).splitlines():
            if line and not line.startswith("|"):
                assert HAN_OR_KANA.search(line), line


@pytest.mark.parametrize("language", LANGUAGES)
def test_timesteps_on_the_schedules_page(comfyui, perflow, language):
    """As the node itself shows them."""
    steps, denoise, counts = tables(page("PeRFlowWindowSchedule", language))[:3]

    def shown(**inputs):
        defaults = {"steps": 4, "denoise": 1.0, "end": "zero", "steps_per_window": ""}
        output = comfyui.nodes["PeRFlowWindowSchedule"].execute(model=perflow(), **(defaults | inputs))
        return output.ui["text"][0].splitlines()[0]

    assert len(steps + denoise + counts) > 15
    assert [row[1] for row in steps[1:]] == [shown(steps=int(row[0])) for row in steps[1:]]
    assert [row[1] for row in denoise[1:]] == [shown(denoise=float(row[0])) for row in denoise[1:]]
    assert [row[1] for row in counts[1:]] == [shown(steps_per_window=row[0]) for row in counts[1:]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_ksamplers_starts_on_the_schedules_page(comfyui, perflow, language):
    """Where the first of 4 steps stands when an image goes in."""
    import comfy.samplers

    model = perflow()
    sampling = model.get_model_object("model_sampling")
    (_, *denoise), *rows = tables(page("PeRFlowWindowSchedule", language))[3]
    assert {scheduler for scheduler, *_ in rows} <= set(comfy.samplers.SCHEDULER_NAMES)
    assert len(rows) == 9
    for scheduler, *starts in rows:
        for d, start in zip(denoise, starts, strict=True):
            sigmas = comfy.samplers.KSampler(model, 4, "cpu", "euler", scheduler, float(d)).sigmas
            first = sampling.align(sigmas, from_noise=False)[0]
            assert round(float(sampling.timestep(first))) == int(start), (scheduler, d)


@pytest.mark.parametrize("language", LANGUAGES)
def test_model_calls_on_the_samplers_page(run, perflow, schedule, noise, language):
    from analytic_model import sample

    (_, *solvers), *rows = tables(page("PeRFlowSampler", language))[0]
    assert solvers == ["euler", "heun", "ab2"]
    for steps, *calls in rows:
        for solver, expected in zip(solvers, calls, strict=True):
            model = perflow()
            unet = model.model.diffusion_model
            unet.seen.clear()
            sample(model, schedule(model, int(steps)), noise, sampler=run("PeRFlowSampler", solver=solver)[0])
            assert len(unet.seen) == int(expected), (steps, solver)


def test_ab2_is_euler_with_one_step_a_window(run, perflow, schedule, noise):
    from analytic_model import sample

    def picture(solver, steps):
        model = perflow()
        return sample(model, schedule(model, steps), noise, sampler=run("PeRFlowSampler", solver=solver)[0])

    assert torch.equal(picture("ab2", 4), picture("euler", 4))
    assert not torch.equal(picture("ab2", 5), picture("euler", 5))


def test_the_plots_page_shows_the_nodes_picture(run, perflow, schedule, tmp_path):
    model = perflow()
    (drawn,) = run("PeRFlowSchedulePlot", model=model, sigmas=schedule(model, 6))
    fresh = tmp_path / "plot.png"
    Image.fromarray((drawn[0] * 255).round().byte().numpy()).save(fresh, optimize=True)
    picture = np.asarray(Image.open(DOCS / "PeRFlowSchedulePlot" / "plot.png").convert("RGB"), dtype=np.float32)
    difference = np.abs(picture / 255 - drawn[0].numpy()).mean()
    assert difference < 2e-3, f"The node draws another picture by now: put {fresh} in its place."


def pieces(quote: str) -> list[str]:
    """A quote without the places where the node fills in names and numbers."""
    return [part.strip(" ,().") for part in quote.split("...") if part.strip(" ,().")]


@functools.cache
def words_in_the_source() -> str:
    """Every text in the nodes and the core, joined as the compiler joins them."""
    files = [*(REPOSITORY / "nodes").rglob("*.py"), *(REPOSITORY / "perflow_core").rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    constants = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return "\n".join(node.value for node in constants if isinstance(node.value, str))
