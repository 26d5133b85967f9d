"""Which cells the table has: a model, a sampler, a number of steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

BASE_SAMPLERS = MappingProxyType(  # sampler and scheduler as KSampler names them
    {"euler": ("euler", "simple"), "DPM++ 2M Karras": ("dpmpp_2m", "karras"), "UniPC": ("uni_pc", "simple")}
)
BASE_STEPS = (4, 6, 8, 16, 25, 50)
WINDOWS = 4
END_POINT = ("DPM++ 2M", ("dpmpp_2m", "simple"), 100)  # the base's own end point: label, names, steps
PERFLOW_STEPS = MappingProxyType({"euler": (2, 4, 6, 8, 16), "heun": (4, 8), "ab2": (6, 8, 16)})
RANKS = (16, 64, 128)

BASE, TUNED, LORA = "base", "fine-tuned base", "base + LoRA"
DELTA = "PeRFlow"


@dataclass(frozen=True)
class Model:
    """root: the model without delta, whose end points are its yardstick; rank: of the delta, 0 for all of it."""

    root: str
    delta: bool = False
    rank: int = 0

    @property
    def name(self) -> str:
        if not self.delta:
            return self.root
        rank = f" rank {self.rank}" if self.rank else ""
        return f"{DELTA}{rank}" if self.root == BASE else f"{self.root} + {DELTA}{rank}"


@dataclass(frozen=True)
class Guidance:
    """CFG of the base and of PeRFlow, whose teacher's guidance may be learned into the delta."""

    base: float
    perflow: float

    def of(self, model: Model) -> float:
        return self.perflow if model.delta else self.base


@dataclass(frozen=True)
class Cell:
    """claimed: a claim of the table rests on it, so it gets more pictures."""

    model: Model
    sampler: str
    steps: int
    claimed: bool = False

    @property
    def calls(self) -> int:
        """Model calls a picture; CFG's two passes are one call."""
        return self.steps * (2 if self.sampler == "heun" else 1)

    def passes(self, cfg: float) -> int:
        """Pictures that go through the UNet for one: ComfyUI leaves the negative prompt out at CFG 1."""
        return self.calls * (1 if cfg == 1 else 2)

    def folder(self, cfg: float, digest: str) -> str:
        """The name of the folder with its pictures, so that other weights, guidance or judges get another folder."""
        name = f"{self.model.name} {self.sampler} {self.steps}".replace(" ", "-").replace("+", "and")
        return f"{name}-cfg{cfg:g}-{digest}"

    @property
    def is_end_point(self) -> bool:
        return not self.model.delta and (self.sampler, self.steps) == (END_POINT[0], END_POINT[2])


def end_point(model: Model) -> Cell:
    return Cell(Model(model.root), END_POINT[0], END_POINT[2])


def planned(roots: Iterable[str], delta: bool, quick: bool = False) -> list[Cell]:
    """The table's cells for the roots there are, the ones that claims rest on first, each root's end points before.

    With 4 steps ab2 is euler, and heun takes two calls in each of the four windows, so neither has a cell below that.
    """
    roots = list(roots)
    if quick:
        cells = [Cell(Model(BASE), sampler, 4) for sampler in BASE_SAMPLERS]
        return cells + ([Cell(Model(BASE, True), "euler", 4)] if delta else [])
    cells = [Cell(Model(BASE), sampler, steps, True) for steps in (4, 8, 16, 50) for sampler in BASE_SAMPLERS]
    if delta:
        cells[:0] = [Cell(Model(BASE, True), "euler", steps, True) for steps in (4, 8)]
        cells += [Cell(Model(BASE, True, 64), "euler", 4, True)]
    for root in [root for root in roots if root != BASE]:
        plain = [Cell(Model(root), sampler, steps) for steps in (4, 8) for sampler in BASE_SAMPLERS]
        with_delta = [Cell(Model(root, True), "euler", steps) for steps in (4, 8)] if delta else []
        cells += [*with_delta, *plain]
    if delta:
        cells += [Cell(Model(BASE, True), sampler, n) for sampler, steps in PERFLOW_STEPS.items() for n in steps]
        cells += [Cell(Model(BASE, True, rank), "euler", n) for rank in RANKS for n in (4, 8)]
    cells += [Cell(Model(BASE), sampler, steps) for steps in BASE_STEPS for sampler in BASE_SAMPLERS]
    unique: dict[tuple[Model, str, int], Cell] = {}
    for cell in cells:
        unique.setdefault((cell.model, cell.sampler, cell.steps), cell)  # where it is claimed, it comes first
    return [end_point(Model(root)) for root in roots] + list(unique.values())
