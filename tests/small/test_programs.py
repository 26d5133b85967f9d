"""The programs of small_model/ that measure, at their smallest size: each runs to its end and prints its figures."""

import json

import pytest
from programs import run


@pytest.fixture
def here(comfyui, monkeypatch, capfd):
    """(program, arguments) -> what it prints; the ComfyUI that it starts is the one of this process."""
    from trial import process

    monkeypatch.setattr(process, "start", lambda *_: comfyui)

    def printed(program: str, *arguments: str) -> str:
        run(monkeypatch, program, *arguments)
        return capfd.readouterr().out

    return printed


@pytest.fixture(scope="module")
def random_weights(comfyui, tmp_path_factory):
    """The small model's files, with random weights."""
    import narrow_model

    return narrow_model.store(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def random_flow(comfyui, tmp_path_factory):
    import flow_files

    return flow_files.store(tmp_path_factory.mktemp("flow"))


@pytest.fixture
def toy_judge(monkeypatch):
    """It compares with few drawings."""
    from small_model.quality import table

    judge = table.DrawnJudge
    monkeypatch.setattr(table, "DrawnJudge", lambda models, results, *_: judge(models, results, 20))


@pytest.mark.usefixtures("toy_judge")
def test_quality_and_its_figure(here, random_weights, tmp_path):
    rows, picture = tmp_path / "rows.json", tmp_path / "quality.png"
    where = ("--weights", str(random_weights), "--results", str(tmp_path), "--json", str(rows))
    printed = here("small_model/measure_quality.py", "--quick", "--pictures", "3", "--at-once", "3", *where)
    assert printed.startswith("4 cells, ")
    assert f"{len(json.loads(rows.read_text()))} rows in {rows}" in printed
    assert "| PeRFlow | euler |" in here("small_model/draw_quality.py", str(rows), "--out", str(picture))
    assert picture.stat().st_size > 10_000


@pytest.mark.usefixtures("toy_judge")
def test_quality_of_the_flow_model_and_its_figure(here, random_flow, tmp_path):
    rows = tmp_path / "rows.json"
    where = ("--weights", str(random_flow), "--results", str(tmp_path), "--json", str(rows))
    printed = here("small_model/measure_quality.py", "--flow", "--quick", "--pictures", "3", "--at-once", "3", *where)
    assert printed.startswith("8 cells, ")
    table = here("small_model/draw_quality.py", str(rows), "--flow", "--out", str(tmp_path / "flow.png"))
    assert all(f"| {name} | euler |" in table for name in ("PeRFlow", "PeRFlow without alignment", "plain reflow"))
    assert (tmp_path / "flow.png").stat().st_size > 10_000


@pytest.mark.usefixtures("toy_judge")
@pytest.mark.parametrize(
    ("weights", "name", "flow"), [("random_weights", "delta", []), ("random_flow", "flow_delta", ["--flow"])]
)
def test_learning_curve(here, request, weights, name, flow, tmp_path, monkeypatch):
    import environment

    monkeypatch.setattr(environment, "cache_root", lambda: tmp_path)  # results of toy pictures are not for the user's
    deltas = tmp_path / "deltas"
    deltas.mkdir()
    folder = request.getfixturevalue(weights)
    (deltas / "1.safetensors").symlink_to(folder / f"{name}.safetensors")
    printed = here(
        "small_model/learning_curve.py",
        str(deltas),
        "--weights",
        str(folder),
        *flow,
        "--pictures",
        "3",
        "--steps",
        "1",
    )
    assert printed.splitlines()[-1].startswith("| 0 | ")
