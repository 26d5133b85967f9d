"""Which cells the table has: a model, a sampler, a number of steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

SAMPLERS = MappingProxyType(  # sampler and scheduler as KSampler names them
    {
        "euler": ("euler", "simple"),
        "euler beta": ("euler", "beta"),
        "DPM++ 2M": ("dpmpp_2m", "simple"),
        "DPM++ 2M Karras": ("dpmpp_2m", "karras"),
        "UniPC": ("uni_pc", "simple"),
        "res_multistep": ("res_multistep", "simple"),
    }
)
WINDOWS = 4
END_POINT = ("DPM++ 2M", 100)  # the base's own end point: sampler, steps

BASE, TUNED, LORA = "base", "fine-tuned base", "base + LoRA"
DELTA, UNALIGNED, REFLOW = "PeRFlow", "PeRFlow without alignment", "plain reflow"


@dataclass(frozen=True)
class Model:
    """root: the model without delta, whose end points are its yardstick.

    delta: which one is on it, and how; rank: to which it was cut, 0 for all of it.
    """

    root: str
    delta: str = ""
    rank: int = 0

    @property
    def name(self) -> str:
        if not self.delta:
            return self.root
        rank = f" rank {self.rank}" if self.rank else ""
        return f"{self.delta}{rank}" if self.root == BASE else f"{self.root} + {self.delta}{rank}"


@dataclass(frozen=True)
class Guidance:
    """CFG of the base and of what has a delta, whose teacher's guidance may be learned into it."""

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
        """Pictures that go through the network for one: ComfyUI leaves the negative prompt out at CFG 1."""
        return self.calls * (1 if cfg == 1 else 2)

    def folder(self, cfg: float, digest: str) -> str:
        """The name of the folder with its pictures, so that other weights, guidance or judges get another folder."""
        name = f"{self.model.name} {self.sampler} {self.steps}".replace(" ", "-").replace("+", "and")
        return f"{name}-cfg{cfg:g}-{digest}"

    @property
    def is_end_point(self) -> bool:
        return not self.model.delta and (self.sampler, self.steps) == END_POINT


Planned = Mapping[Model, Mapping[str, Collection[int]]]  # models with a delta, their samplers and steps


@dataclass(frozen=True)
class Family:
    """What the table has of one kind of models.

    samplers, steps: of the base; claimed_steps: those that claims rest on.
    accelerated: what has a delta; claimed: what claims rest on of it.
    by_nodes: PeRFlow's steps are Window Schedule's, by PeRFlow Sampler; otherwise KSampler's, aligned to the windows.
    """

    samplers: Collection[str]
    steps: Collection[int]
    claimed_steps: Collection[int]
    accelerated: Planned
    claimed: Planned
    by_nodes: bool


# With 4 steps ab2 is euler, and heun takes two calls in each of the four windows, so neither has a cell below that.
SD15 = Family(
    samplers=("euler", "DPM++ 2M Karras", "UniPC"),
    steps=(4, 6, 8, 16, 25, 50),
    claimed_steps=(4, 8, 16, 50),
    accelerated={
        Model(BASE, DELTA): {"euler": (2, 4, 6, 8, 16), "heun": (4, 8), "ab2": (6, 8, 16)},
        **{Model(BASE, DELTA, rank): {"euler": (4, 8)} for rank in (16, 64, 128)},
    },
    claimed={Model(BASE, DELTA): {"euler": (4, 8)}, Model(BASE, DELTA, 64): {"euler": (4,)}},
    by_nodes=True,
)
FLOW = Family(
    samplers=("euler", "euler beta", "DPM++ 2M", "UniPC", "res_multistep"),
    steps=(4, 6, 8, 16, 25),
    claimed_steps=(4, 8, 16),
    accelerated={
        Model(BASE, DELTA): {"euler": (4, 6, 8), "euler beta": (4, 8)},
        Model(BASE, UNALIGNED): {"euler": (4, 6, 8), "euler beta": (4, 8)},
        Model(BASE, REFLOW): {"euler": (4, 8)},
    },
    claimed={Model(BASE, DELTA): {"euler": (4, 8)}, Model(BASE, REFLOW): {"euler": (4,)}},
    by_nodes=False,
)


def end_point(model: Model) -> Cell:
    return Cell(Model(model.root), *END_POINT)


def planned(family: Family, roots: Iterable[str], deltas: Collection[str], quick: bool = False) -> list[Cell]:
    """The table's cells for the roots and deltas there are, each root's end points first, then what claims rest on."""
    roots = list(roots)
    if quick:
        cells = [Cell(Model(BASE), sampler, 4) for sampler in family.samplers]
        return cells + [Cell(Model(BASE, delta), "euler", 4) for delta in deltas]
    cells = [*_with_delta(family.claimed, deltas, claimed=True)]
    cells += [Cell(Model(BASE), sampler, steps, True) for steps in family.claimed_steps for sampler in family.samplers]
    for root in [root for root in roots if root != BASE]:
        cells += _with_delta({Model(root, DELTA): {"euler": (4, 8)}}, deltas)
        cells += [Cell(Model(root), sampler, steps) for steps in (4, 8) for sampler in family.samplers]
    cells += _with_delta(family.accelerated, deltas)
    cells += [Cell(Model(BASE), sampler, steps) for steps in family.steps for sampler in family.samplers]
    unique: dict[tuple[Model, str, int], Cell] = {}
    for cell in cells:
        unique.setdefault((cell.model, cell.sampler, cell.steps), cell)  # where it is claimed, it comes first
    return [end_point(Model(root)) for root in roots] + list(unique.values())


def _with_delta(cells: Planned, deltas: Collection[str], claimed: bool = False) -> Iterator[Cell]:
    for model, samplers in cells.items():
        if model.delta in deltas:
            yield from (Cell(model, sampler, n, claimed) for sampler, steps in samplers.items() for n in steps)
