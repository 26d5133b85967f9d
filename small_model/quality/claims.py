"""The claims about the table, each with the numbers that support or contradict it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .cells import BASE, BASE_SAMPLERS, LORA, TUNED, Cell, Model
from .frechet import Estimate, Gaussian, frechet, gaussian, jackknife, pseudo_values
from .rows import attributes, difference, distance
from .store import Judged

Known = dict[Cell, Judged]


def claims(known: Known, references: dict[str, Gaussian]) -> list[str]:
    """One sentence for each claim whose cells are all there; references: of the drawings, by root."""
    cells = {(cell.model, cell.sampler, cell.steps): judged for cell, judged in known.items()}
    sentences: list[str] = []
    for claim in (_less_steps, _attributes, _half, _other_bases, _rank):
        try:
            sentences += claim(lambda *key: cells[key], references)
        except KeyError:
            continue  # a cell of it is not there
    return sentences


Find = Callable[[Model, str, int], Judged]


def best(find: Find, root: str, steps: int, reference: Gaussian) -> tuple[str, Judged]:
    """The sampler of the base with the smallest distance at that many steps (as in its row), and its pictures."""
    found = {sampler: find(Model(root), sampler, steps) for sampler in BASE_SAMPLERS}
    name = min(found, key=lambda sampler: distance(found[sampler], reference).value)
    return name, found[name]


def _less_steps(find: Find, references: dict[str, Gaussian]) -> list[str]:
    sentences = []
    for few, many in ((4, 8), (8, 16)):
        name, judged = best(find, BASE, many, references[BASE])
        apart = difference(find(Model(BASE, True), "euler", few), judged, references[BASE])
        sentences.append(
            f"PeRFlow's {few} steps are {_verdict(apart)} than the base's best {many} ({name}): "
            f"the first Fréchet distance minus the second is {_text(apart)}."
        )
    return sentences


def _attributes(find: Find, references: dict[str, Gaussian]) -> list[str]:
    name, judged = best(find, BASE, 50, references[BASE])
    ours, theirs = attributes(find(Model(BASE, True), "euler", 4)), attributes(judged)
    share = ours.value / theirs.value
    return [
        f"PeRFlow's 4 steps find {100 * share:.1f} % of the attributes that 50 base steps ({name}) find, "
        f"{100 * ours.value:.1f} % against {100 * theirs.value:.1f} % (wanted: 95 %)."
    ]


def _half(find: Find, references: dict[str, Gaussian]) -> list[str]:
    name, judged = best(find, BASE, 4, references[BASE])
    ours = find(Model(BASE, True), "euler", 4)
    apart = difference(ours, judged, references[BASE], factor=0.5)
    return [
        f"PeRFlow's distance at 4 steps is {'at most' if apart.value <= 0 else 'more than'} half of the base's best "
        f"4-step one ({name}): the first minus half of the second is {_text(apart)}."
    ]


def _distances(judged: Judged, count: int, reference: Gaussian) -> Tensor:
    """The jackknife's pseudo-values of the Fréchet distance from the first `count` pictures."""
    return pseudo_values(lambda rows: frechet(gaussian(judged["features"][rows]), reference), count)


def _gain(find: Find, model: Model, reference: Gaussian) -> Estimate:
    """1 - distance of 4 steps with delta / distance of the best 4 steps without."""
    ours, (_, theirs) = find(model, "euler", 4), best(find, model.root, 4, reference)
    count = min(len(ours["features"]), len(theirs["features"]))
    near, far = (_distances(judged, count, reference) for judged in (ours, theirs))
    return jackknife(lambda groups: float(1 - near[groups].mean() / far[groups].mean()), len(near))


def _other_bases(find: Find, references: dict[str, Gaussian]) -> list[str]:
    own = _gain(find, Model(BASE, True), references[BASE])
    sentences = []
    for root in (TUNED, LORA):
        if root in references:
            there = _gain(find, Model(root, True), references[root])
            sentences.append(
                f"On the {root} the delta takes away {_text(there, 100)} % of the best 4-step distance, on its own "
                f"base {_text(own, 100)} %: it keeps {100 * there.value / own.value:.0f} % of the gain (wanted: 80 %)."
            )
    return sentences


def _rank(find: Find, references: dict[str, Gaussian]) -> list[str]:
    whole, low = (_gain(find, Model(BASE, True, rank), references[BASE]) for rank in (0, 64))
    return [f"Rank 64 keeps {100 * low.value / whole.value:.0f} % of the gain at 4 steps (wanted: 95 %)."]


def _verdict(apart: Estimate) -> str:
    if abs(apart.value) <= 2 * apart.error:
        return "not measurably worse"
    return "better" if apart.value < 0 else "worse"


def _text(estimate: Estimate, factor: float = 1.0) -> str:
    return f"{factor * estimate.value:.3g} ± {factor * estimate.error:.2g}"
