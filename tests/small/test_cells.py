"""What the table plans."""

from small_model.quality.cells import BASE, LORA, TUNED, Cell, Model, end_point, planned


def test_every_cell_once_and_end_points_first():
    cells = planned([BASE, TUNED, LORA], delta=True)
    assert cells[:3] == [end_point(Model(root)) for root in (BASE, TUNED, LORA)]
    assert len({(cell.model, cell.sampler, cell.steps) for cell in cells}) == len(cells)


def test_the_rows_that_are_asked_for():
    told = {(cell.model.name, cell.sampler, cell.steps) for cell in planned([BASE, TUNED, LORA], delta=True)}
    for steps in (4, 6, 8, 16, 25, 50):
        assert {("base", sampler, steps) for sampler in ("euler", "DPM++ 2M Karras", "UniPC")} <= told
    assert {("PeRFlow", "euler", steps) for steps in (2, 4, 6, 8, 16)} <= told
    assert {(f"PeRFlow rank {rank}", "euler", 4) for rank in (16, 64, 128)} <= told
    assert {("fine-tuned base + PeRFlow", "euler", 4), ("base + LoRA + PeRFlow", "euler", 4)} <= told


def test_claims_have_as_many_pictures_on_both_sides():
    claimed = {cell for cell in planned([BASE], delta=True) if cell.claimed}
    assert {(cell.model.name, cell.steps) for cell in claimed} == {
        *((BASE, steps) for steps in (4, 8, 16, 50)),
        *(("PeRFlow", steps) for steps in (4, 8)),
        ("PeRFlow rank 64", 4),
    }


def test_without_a_delta_there_is_the_base_alone():
    assert {cell.model for cell in planned([BASE], delta=False)} == {Model(BASE)}


def test_heun_takes_two_calls_a_step():
    assert Cell(Model(BASE, True), "heun", 4).calls == Cell(Model(BASE, True), "euler", 8).calls == 8


def test_what_claims_rest_on_comes_first():
    """A table is of use before it is whole."""
    claimed = [cell.claimed for cell in planned([BASE], True)[1:]]
    assert claimed == sorted(claimed, reverse=True)
    assert sum(claimed) == 15
