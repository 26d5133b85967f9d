"""The table of a small model: what is sampled, what is known of it, and the rows."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import claims, sampling
from .cells import BASE, SAMPLERS, Cell, Guidance, Model, end_point
from .drawn_judge import BATCH, REFERENCE_COUNT, DrawnJudge
from .rows import Row, row
from .store import Judged, Store
from .stored_models import StoredModels

AT_ONCE = 25  # pictures sampled at once: measured on a CPU, a fifth faster than 100; a GPU wants a thousand


@dataclass(frozen=True)
class Amounts:
    """Pictures of a cell, of a cell that is claimed something about, and of those with end points."""

    pictures: int
    claimed: int = 5000
    paired: int = 500

    def of(self, cell: Cell) -> int:
        if cell.is_end_point:
            return min(self.paired, self.pictures)
        return max(self.claimed, self.pictures) if cell.claimed else self.pictures


@dataclass
class Table:
    """What is sampled, judged and stored below `results`, `batch` pictures a file."""

    nodes: Any
    models: StoredModels
    judge: DrawnJudge
    results: Path
    amounts: Amounts
    guidance: Guidance
    batch: int = BATCH
    at_once: int = AT_ONCE

    def __post_init__(self) -> None:
        self._rows: dict[Cell, Row] = {}
        self._drawings: list[Row] = []
        self._texts = self.models.texts()
        self._negative = self._texts([""])

    def store(self, cell: Cell) -> Store:
        digests = f"{self.models.digest(cell.model)}-{self.judge.digest}"
        return Store(self.results / "pictures" / cell.folder(self.guidance.of(cell.model), digests), self.batch)

    def missing(self, cell: Cell) -> list[range]:
        return list(self.store(cell).missing(self.amounts.of(cell)))

    def passes(self, cell: Cell) -> int:
        """Of the network for one picture."""
        return cell.passes(self.guidance.of(cell.model))

    def left(self, cells: Sequence[Cell]) -> int:
        """Passes that are left to do."""
        return sum(self.passes(cell) * sum(map(len, self.missing(cell))) for cell in cells)

    def rate(self) -> float:
        """Passes a second, measured on two steps of one batch."""
        cell = Cell(Model(BASE), next(iter(SAMPLERS)), 2)
        self.sample(cell, range(8))  # the first time is slower
        began = time.perf_counter()
        self.sample(cell, range(self.at_once))
        return self.passes(cell) * self.at_once / (time.perf_counter() - began)

    def sample(self, cell: Cell, numbers: Sequence[int]) -> Tensor:
        """LATENT samples [n, C, 16, 16] of those pictures, a few at once."""
        n = self.at_once
        return torch.cat([self._sample(cell, numbers[i : i + n]) for i in range(0, len(numbers), n)])

    def _sample(self, cell: Cell, numbers: Sequence[int]) -> Tensor:
        positive = self._texts(self.judge.prompts(numbers))
        model, noise, cfg = self.models[cell.model], self.models.noise(numbers), self.guidance.of(cell.model)
        family = self.models.family
        return sampling.sample(self.nodes, model, cell, noise, positive, self._negative, cfg, family)

    def fill(self, cell: Cell) -> int:
        """Sample and judge what is missing of a cell, a few batches at once, each of which becomes a file.

        Returns the passes of the network that it took.
        """
        store, missing, some = self.store(cell), self.missing(cell), max(1, self.at_once // self.batch)
        for i in range(0, len(missing), some):
            batches = missing[i : i + some]
            numbers = [number for batch in batches for number in batch]
            judged = self.judge.of_samples(numbers, self.sample(cell, numbers))
            parts = {name: torch.split(tensor, [len(batch) for batch in batches]) for name, tensor in judged.items()}
            for j, batch in enumerate(batches):
                store.keep(batch, {name: tensors[j] for name, tensors in parts.items()})
        return self.passes(cell) * sum(map(len, missing))

    def known(self, cells: Sequence[Cell]) -> dict[Cell, Judged]:
        """The judged pictures of the cells that are complete."""
        complete = [cell for cell in cells if not self.missing(cell)]
        return {cell: self.store(cell).read(self.amounts.of(cell)) for cell in complete}

    def rows(self, cells: Sequence[Cell]) -> list[Row]:
        """The drawings themselves, as the best that can be had, the cells that are complete, and the best of them."""
        self._drawings = self._drawings or [self._drawings_row(decoded) for decoded in (False, True)]
        for cell in cells:
            if cell not in self._rows and not self.missing(cell):
                self._rows[cell] = self._row(cell)
        found = [self._rows[cell] for cell in cells if cell in self._rows]
        return self._drawings + found + best_of(found, self.models.family.samplers)

    def _drawings_row(self, decoded: bool) -> Row:
        name = "held-out drawings" + (", through the autoencoder" if decoded else "")
        drawings = self.judge.drawings(self.amounts.pictures, None, decoded)
        what: Row = dict(model=name, sampler="", steps=0, calls=0, passes=0)
        return row(what, drawings, self.judge.reference(BASE), None)

    def _row(self, cell: Cell) -> Row:
        yardstick = end_point(cell.model)
        end_points = None
        if not cell.is_end_point and not self.missing(yardstick):
            end_points = self.store(yardstick).read(self.amounts.of(yardstick))["latents"]
        what: Row = dict(model=cell.model.name, sampler=cell.sampler, steps=cell.steps, calls=cell.calls)
        what |= dict(passes=self.passes(cell), cfg=self.guidance.of(cell.model))
        judged = self.store(cell).read(self.amounts.of(cell))
        return row(what, judged, self.judge.reference(cell.model.root), end_points)

    def claims(self, known: dict[Cell, Judged]) -> list[str]:
        roots = {cell.model.root for cell in known}
        return claims.claims(known, {root: self.judge.reference(root) for root in roots}, self.models.family.samplers)


def table_of(
    comfyui: Any, models: StoredModels, results: Path, amounts: Amounts, guidance: Guidance, at_once: int,
    references: int = REFERENCE_COUNT,
) -> Table:  # fmt: skip
    """The table of the models of a folder, compared with so many drawings, sampled on ComfyUI's device."""
    import comfy.model_management

    judge = DrawnJudge(models, results, references, comfy.model_management.get_torch_device())
    return Table(comfyui.nodes, models, judge, results, amounts, guidance, at_once=at_once)


def best_of(rows: Sequence[Row], samplers: Collection[str]) -> list[Row]:
    """The base's best sampler at every number of steps that all of them have, by Fréchet distance."""
    found = []
    compared = [one for one in rows if one["model"] == BASE and one["sampler"] in samplers]
    for steps in sorted({one["steps"] for one in compared}):
        same = [one for one in compared if one["steps"] == steps]
        if len(same) == len(samplers):
            best = min(same, key=lambda row: row["frechet"])
            found.append(best | {"sampler": "best of them", "which": best["sampler"]})
    return found


def not_better_with_more_steps(rows: Sequence[Row]) -> list[str]:
    """Where a sampler's distance grows with its steps by more than twice its error."""
    sentences = []
    series: dict[tuple[str, str], list[Row]] = {}
    for one in rows:
        if one["steps"] and "which" not in one:
            series.setdefault((one["model"], one["sampler"]), []).append(one)
    for (model, sampler), members in series.items():
        members.sort(key=lambda row: row["steps"])
        best = min(members, key=lambda row: row["frechet"])
        error = (best["frechet_error"] ** 2 + members[-1]["frechet_error"] ** 2) ** 0.5
        if members[-1]["frechet"] - best["frechet"] > 2 * error:
            sentences.append(
                f"{model}, {sampler}: {members[-1]['steps']} steps are not better than {best['steps']} "
                f"(distance {members[-1]['frechet']:.3g} against {best['frechet']:.3g})."
            )
    return sentences
