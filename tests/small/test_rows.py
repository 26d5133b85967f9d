"""Rows, the claims made of them, and the Markdown and the figure drawn of them."""

import json

import pytest
import torch
from environment import UserError

from small_model import draw_quality
from small_model.quality.cells import BASE, DELTA, FLOW, REFLOW, SD15, Cell, Model
from small_model.quality.claims import claims
from small_model.quality.frechet import Gaussian, frechet, gaussian
from small_model.quality.rows import attributes, difference, distance, paired, row
from small_model.quality.table import best_of, not_better_with_more_steps

STANDARD = Gaussian(torch.zeros(3).double(), torch.eye(3).double())


def judged(shift: float, count: int = 500, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, generator=random) + shift
    said = torch.rand(count, 2, generator=random) < 0.7
    return {"features": features, "named": said, "found": said & (torch.rand(count, 2, generator=random) < 0.9)}


def test_attributes_count_only_what_was_said():
    said = torch.tensor([[True, True], [True, False], [True, True]])
    found = torch.tensor([[True, False], [True, False], [True, True]])
    assert attributes({"named": said, "found": found}).value == pytest.approx(4 / 5)


def test_error_of_a_share_is_the_binomial_one():
    shares = judged(0, 4000)
    many = int(shares["named"].sum())
    assert attributes(shares).error == pytest.approx((0.9 * 0.1 / many) ** 0.5, rel=0.3)


def test_paired_is_relative_to_the_end_points():
    ends = torch.randn(50, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    found = paired(1.1 * ends, ends)
    assert found.value == pytest.approx(0.1, rel=1e-6)
    assert found.error == pytest.approx(0, abs=1e-8)


def test_differences_of_the_same_noise_have_small_errors():
    """Two cells that differ by a constant: their errors cancel, those of cells with other noise do not."""
    one, other = judged(1.0), judged(0.9)
    same = difference(one, other, STANDARD)
    assert same.value == pytest.approx(3 * (1 - 0.81), abs=0.1)
    assert same.error < 0.5 * difference(one, judged(0.9, seed=1), STANDARD).error


def table_of(shifts: dict[Cell, float]):
    known = {cell: judged(shift) for cell, shift in shifts.items()}
    rows = []
    for cell, found in known.items():
        told = dict(model=cell.model.name, sampler=cell.sampler, steps=cell.steps, calls=cell.calls)
        told |= dict(passes=cell.passes(cfg=3.0))
        rows.append(row(told, found, STANDARD, None))
    return known, rows


@pytest.fixture
def shifts():
    cells = {Cell(Model(BASE), sampler, steps): 4 / steps for sampler in SD15.samplers for steps in (4, 8, 16, 50)}
    cells |= {Cell(Model(BASE, DELTA), "euler", steps): 0.3 for steps in (4, 8)}
    return cells | {Cell(Model(BASE, DELTA, 64), "euler", 4): 0.31}


def test_claims(shifts):
    known, _ = table_of(shifts)
    said = claims(known, {BASE: STANDARD}, SD15.samplers)
    assert "PeRFlow's 4 steps are better than the base's best 8" in said[0]
    assert "PeRFlow's 8 steps are worse than the base's best 16" in said[1]
    assert any("is at most half of the base's best 4-step one" in sentence for sentence in said)
    assert any(sentence.startswith("Rank 64 keeps 99 % of the gain") for sentence in said)


def test_claims_of_the_flow_model():
    """Its samplers are others, and plain reflow is beside PeRFlow."""
    shifts = {Cell(Model(BASE), sampler, steps): 4 / steps for sampler in FLOW.samplers for steps in (4, 8, 16)}
    shifts |= {Cell(Model(BASE, DELTA), "euler", steps): 0.3 for steps in (4, 8)}
    known, _ = table_of(shifts | {Cell(Model(BASE, REFLOW), "euler", 4): 0.6, Cell(Model(BASE), "UniPC", 8): 0.4})
    said = claims(known, {BASE: STANDARD}, FLOW.samplers)
    assert said[0].startswith("PeRFlow's 4 steps are better than the base's best 8 (UniPC)")
    assert said[1].startswith("PeRFlow's 8 steps are worse than the base's best 16")
    assert said[2].startswith("PeRFlow's 4 steps are better than plain reflow's 4")


def test_claims_and_rows_name_the_same_best(shifts):
    """The plain distance of fewer pictures is too large: by it the best one with 25 pictures would seem the worse."""
    known, _ = table_of(shifts)
    few, many = (Cell(Model(BASE), sampler, 8) for sampler in ("UniPC", "euler"))
    known |= {few: judged(0.0, count=25, seed=2), many: judged(0.2, count=5000)}
    distances = {cell: frechet(gaussian(known[cell]["features"]), STANDARD) for cell in (few, many)}
    assert distances[few] > distances[many]
    assert distance(known[few], STANDARD).value < distance(known[many], STANDARD).value
    assert "the base's best 8 (UniPC)" in claims(known, {BASE: STANDARD}, SD15.samplers)[0]


def test_claims_without_their_cells_are_not_made(shifts):
    known, _ = table_of({cell: shift for cell, shift in shifts.items() if cell.steps != 16 and not cell.model.rank})
    assert not any(
        "16" in sentence or "Rank" in sentence for sentence in claims(known, {BASE: STANDARD}, SD15.samplers)
    )


def test_the_best_of_the_samplers_has_a_row(shifts):
    _, rows = table_of(shifts | {Cell(Model(BASE), "UniPC", 4): 0.5})
    best = best_of(rows, SD15.samplers)
    assert [(one["steps"], one["sampler"]) for one in best] == [(n, "best of them") for n in (4, 8, 16, 50)]
    assert best[0]["which"] == "UniPC"


def test_more_steps_that_are_not_better_are_said(shifts):
    _, rows = table_of(shifts | {Cell(Model(BASE), "euler", 50): 0.6})
    assert [sentence.partition(" (")[0] for sentence in not_better_with_more_steps(rows)] == [
        "base, euler: 50 steps are not better than 16"
    ]


def test_markdown(shifts):
    _, rows = table_of(shifts | {Cell(Model(BASE), "UniPC", 4): 0.5})
    lines = draw_quality.table(rows + best_of(rows, SD15.samplers)).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    assert any(line.startswith("| base | **UniPC** | 4 | 4 | 8 | 0.") for line in lines)


def test_end_points_are_on_no_curve():
    ends, others = ({"model": BASE, "sampler": "DPM++ 2M", "steps": steps} for steps in (100, 25))
    assert draw_quality.points([ends, others], BASE, "DPM++ 2M") == [others]


def test_the_figure_is_drawn(shifts, tmp_path):
    _, rows = table_of(shifts)
    draw_quality.draw(rows, tmp_path / "quality.png")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["", "[]", '{"model": 1}', json.dumps([{"model": "base"}])])
def test_a_file_without_rows_is_refused(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(UserError, match=r"rows\.json holds no rows of the table, expected"):
        draw_quality.read(tmp_path / "rows.json")
