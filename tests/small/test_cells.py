"""What the table plans."""

from small_model.quality.cells import (
    BASE,
    DELTA,
    FLOW,
    LORA,
    REFLOW,
    SD15,
    TUNED,
    UNALIGNED,
    Cell,
    Model,
    end_point,
    planned,
)


def test_every_cell_once_and_end_points_first():
    cells = planned(SD15, [BASE, TUNED, LORA], [DELTA])
    assert cells[:3] == [end_point(Model(root)) for root in (BASE, TUNED, LORA)]
    assert len({(cell.model, cell.sampler, cell.steps) for cell in cells}) == len(cells)


def test_the_rows_that_are_asked_for():
    told = {(cell.model.name, cell.sampler, cell.steps) for cell in planned(SD15, [BASE, TUNED, LORA], [DELTA])}
    for steps in (4, 6, 8, 16, 25, 50):
        assert {("base", sampler, steps) for sampler in ("euler", "DPM++ 2M Karras", "UniPC")} <= told
    assert {("PeRFlow", "euler", steps) for steps in (2, 4, 6, 8, 16)} <= told
    assert {(f"PeRFlow rank {rank}", "euler", 4) for rank in (16, 64, 128)} <= told
    assert {("fine-tuned base + PeRFlow", "euler", 4), ("base + LoRA + PeRFlow", "euler", 4)} <= told


def test_claims_have_as_many_pictures_on_both_sides():
    claimed = {cell for cell in planned(SD15, [BASE], [DELTA]) if cell.claimed}
    assert {(cell.model.name, cell.steps) for cell in claimed} == {
        *((BASE, steps) for steps in (4, 8, 16, 50)),
        *(("PeRFlow", steps) for steps in (4, 8)),
        ("PeRFlow rank 64", 4),
    }


def test_without_a_delta_there_is_the_base_alone():
    assert {cell.model for cell in planned(SD15, [BASE], [])} == {Model(BASE)}


def test_the_rows_of_the_flow_model():
    cells = planned(FLOW, [BASE], [DELTA, UNALIGNED, REFLOW])
    told = {(cell.model.name, cell.sampler, cell.steps) for cell in cells}
    for steps in (4, 6, 8, 16, 25):
        assert {("base", sampler, steps) for sampler in FLOW.samplers} <= told
    for name in ("PeRFlow", "PeRFlow without alignment"):
        assert {(name, "euler", steps) for steps in (4, 6, 8)} <= told
    assert {("plain reflow", "euler", steps) for steps in (4, 8)} <= told
    assert cells[0] == Cell(Model(BASE), "DPM++ 2M", 100)
    assert [cell.claimed for cell in cells[1:]] == sorted((cell.claimed for cell in cells[1:]), reverse=True)
    assert {cell.model for cell in planned(FLOW, [BASE], [])} == {Model(BASE)}
    assert Model(BASE, REFLOW) not in {cell.model for cell in planned(FLOW, [BASE], [DELTA, UNALIGNED])}


def test_results_keep_their_folders():
    """What was sampled before is found again."""
    assert Cell(Model(BASE, DELTA, 64), "euler", 4).folder(1.0, "x") == "PeRFlow-rank-64-euler-4-cfg1-x"
    assert Cell(Model(LORA, DELTA), "euler", 8).folder(1.0, "x") == "base-and-LoRA-and-PeRFlow-euler-8-cfg1-x"
    assert end_point(Model(TUNED)).folder(3.0, "x") == "fine-tuned-base-DPM++-2M-100-cfg3-x".replace("+", "and")


def test_heun_takes_two_calls_a_step():
    assert Cell(Model(BASE, DELTA), "heun", 4).calls == Cell(Model(BASE, DELTA), "euler", 8).calls == 8


def test_what_claims_rest_on_comes_first():
    """A table is of use before it is whole."""
    claimed = [cell.claimed for cell in planned(SD15, [BASE], [DELTA])[1:]]
    assert claimed == sorted(claimed, reverse=True)
    assert sum(claimed) == 15
