"""The claims about the table, each with the numbers that support or contradict it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from torch import Tensor

from .cells import BASE, DELTA, LORA, REFLOW, TUNED, Cell, Model
from .frechet import Estimate, Gaussian, frechet, gaussian, jackknife, pseudo_values
from .rows import attributes, difference, distance
from .store import Judged

Known = dict[Cell, Judged]


def claims(known: Known, references: dict[str, Gaussian], samplers: Collection[str]) -> list[str]:
    """One sentence for each claim whose cells are all there; references: of the drawings, by root.

    samplers: of the base, among which its best one is.
    """
    cells = {(cell.model, cell.sampler, cell.steps): judged for cell, judged in known.items()}
    table = Found(lambda *key: cells[key], samplers)
    sentences: list[str] = []
    for claim in (_less_steps, _reflow, _attributes, _half, _other_bases, _rank):
        try:
            sentences += claim(table, references)
        except KeyError:
            continue  # a cell of it is not there
    return sentences


class Found(NamedTuple):
    """The pictures of a cell, and which samplers the base has. `find` raises KeyError where there are none."""

    find: Callable[[Model, str, int], Judged]
    samplers: Collection[str]


def best(table: Found, root: str, steps: int, reference: Gaussian) -> tuple[str, Judged]:
    """The sampler of the base with the smallest distance at that many steps (as in its row), and its pictures."""
    found = {sampler: table.find(Model(root), sampler, steps) for sampler in table.samplers}
    name = min(found, key=lambda sampler: distance(found[sampler], reference).value)
    return name, found[name]


def _less_steps(table: Found, references: dict[str, Gaussian]) -> list[str]:
    sentences = []
    for few, many in ((4, 8), (8, 16)):
        name, judged = best(table, BASE, many, references[BASE])
        apart = difference(table.find(Model(BASE, DELTA), "euler", few), judged, references[BASE])
        sentences.append(
            f"PeRFlow's {few} steps are {_verdict(apart)} than the base's best {many} ({name}): "
            f"the first Fréchet distance minus the second is {_text(apart)}."
        )
    return sentences


def _reflow(table: Found, references: dict[str, Gaussian]) -> list[str]:
    ours, theirs = (table.find(Model(BASE, delta), "euler", 4) for delta in (DELTA, REFLOW))
    apart = difference(ours, theirs, references[BASE])
    return [
        f"PeRFlow's 4 steps are {_verdict(apart)} than plain reflow's 4: the first Fréchet distance minus the second "
        f"is {_text(apart)}."
    ]


def _attributes(table: Found, references: dict[str, Gaussian]) -> list[str]:
    name, judged = best(table, BASE, 50, references[BASE])
    ours, theirs = attributes(table.find(Model(BASE, DELTA), "euler", 4)), attributes(judged)
    share = ours.value / theirs.value
    return [
        f"PeRFlow's 4 steps find {100 * share:.1f} % of the attributes that 50 base steps ({name}) find, "
        f"{100 * ours.value:.1f} % against {100 * theirs.value:.1f} % (wanted: 95 %)."
    ]


def _half(table: Found, references: dict[str, Gaussian]) -> list[str]:
    name, judged = best(table, BASE, 4, references[BASE])
    ours = table.find(Model(BASE, DELTA), "euler", 4)
    apart = difference(ours, judged, references[BASE], factor=0.5)
    return [
        f"PeRFlow's distance at 4 steps is {'at most' if apart.value <= 0 else 'more than'} half of the base's best "
        f"4-step one ({name}): the first minus half of the second is {_text(apart)}."
    ]


def _distances(judged: Judged, count: int, reference: Gaussian) -> Tensor:
    """The jackknife's pseudo-values of the Fréchet distance from the first `count` pictures."""
    return pseudo_values(lambda rows: frechet(gaussian(judged["features"][rows]), reference), count)


def _gain(table: Found, model: Model, reference: Gaussian) -> Estimate:
    """1 - distance of 4 steps with delta / distance of the best 4 steps without."""
    ours, (_, theirs) = table.find(model, "euler", 4), best(table, model.root, 4, reference)
    count = min(len(ours["features"]), len(theirs["features"]))
    near, far = (_distances(judged, count, reference) for judged in (ours, theirs))
    return jackknife(lambda groups: float(1 - near[groups].mean() / far[groups].mean()), len(near))


def _other_bases(table: Found, references: dict[str, Gaussian]) -> list[str]:
    own = _gain(table, Model(BASE, DELTA), references[BASE])
    sentences = []
    for root in (TUNED, LORA):
        if root in references:
            there = _gain(table, Model(root, DELTA), references[root])
            sentences.append(
                f"On the {root} the delta takes away {_text(there, 100)} % of the best 4-step distance, on its own "
                f"base {_text(own, 100)} %: it keeps {100 * there.value / own.value:.0f} % of the gain (wanted: 80 %)."
            )
    return sentences


def _rank(table: Found, references: dict[str, Gaussian]) -> list[str]:
    whole, low = (_gain(table, Model(BASE, DELTA, rank), references[BASE]) for rank in (0, 64))
    return [f"Rank 64 keeps {100 * low.value / whole.value:.0f} % of the gain at 4 steps (wanted: 95 %)."]


def _verdict(apart: Estimate) -> str:
    if abs(apart.value) <= 2 * apart.error:
        return "not measurably worse"
    return "better" if apart.value < 0 else "worse"


def _text(estimate: Estimate, factor: float = 1.0) -> str:
    return f"{factor * estimate.value:.3g} ± {factor * estimate.error:.2g}"
