"""A Prompt-to-Prompt edit on its way from the node to the attention: its settings, its steps, one UNet call."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor

from ....perflow_core.editing.local_blend import blend_mask
from ....perflow_core.editing.token_edit import TokenEdit, cross_alpha, self_active

KEY = "prompt_to_prompt"  # of the plan in a CONDITIONING's options, and of the run in a sampling's


@dataclass(frozen=True, eq=False)
class EditPlan:
    """The settings of one node, which the CONDITIONING carries. Rows: the source, then E edits."""

    edits: TokenEdit  # stacked, every context L tokens long
    cross_steps: float
    self_steps: float
    words: Tensor | None  # [1 + E, L]: 1 for tokens whose place may change; None without LocalBlend
    threshold: float

    @property
    def rows(self) -> int:
        return len(self.edits.M) + 1

    @property
    def length(self) -> int:
        return self.edits.M.shape[-1]


class ScheduledEdit:
    """A plan at each step of a run; its tables are moved to a device once.

    alpha: how far the cross attention is edited in each of the n steps, 1 or 0, and one entry more, [n + 1];
    self_active: whether self attention is, [n].
    """

    def __init__(self, plan: EditPlan, steps: int):
        self.plan = plan
        self.alpha = cross_alpha(steps, torch.tensor([0.0, plan.cross_steps], dtype=torch.float64))
        self.self_active = self_active(steps, plan.self_steps)
        self.edits_cross, self.edits_self = bool(self.alpha[:steps].any()), bool(self.self_active.any())
        self._moved: dict[Any, Any] = {}

    def tables_on(self, device: torch.device, dtype: torch.dtype) -> "tuple[TokenEdit, Tensor, Tensor, Tensor | None]":
        if (device, dtype) not in self._moved:
            edits = TokenEdit(*(table.to(dtype).to(device) for table in self.plan.edits))
            words = None if self.plan.words is None else self.plan.words.to(dtype).to(device)
            self._moved[device, dtype] = edits, self.alpha.to(dtype).to(device), self.self_active.to(device), words
        return self._moved[device, dtype]

    def at(self, step: Tensor, rows: slice, x: Tensor, located: "LocatedWords | None") -> "EditedPart":
        """The edit in one UNet call: step, a 0-dim tensor on the device of x; rows, where in x its prompts are."""
        edits, alpha, self_active, words = self.tables_on(x.device, x.dtype)
        return EditedPart(
            rows,
            self.plan.rows,
            edits,
            alpha.index_select(0, step[None])[0] if self.edits_cross else None,
            self_active.index_select(0, step[None])[0] if self.edits_self else None,
            words if located is not None and located.plan is self.plan else None,
            located if located is not None and located.size == tuple(x.shape[2:]) else None,
        )


class EditedPart(NamedTuple):
    """The rows of one UNet call that hold sources and their edits, each source followed by its edits."""

    rows: slice
    group: int  # 1 + E
    edits: TokenEdit
    alpha: Tensor | None  # of this step; None where no step has any
    self_active: Tensor | None  # likewise
    words: Tensor | None
    located: "LocatedWords | None"

    def of(self, tensor: Tensor) -> Tensor:
        """This part of a batch, [n, 1 + E, ...]; a view."""
        return rearrange(tensor[self.rows], "(n row) ... -> n row ...", row=self.group)

    def source(self, tensor: Tensor) -> Tensor:
        """The sources' rows, one for every edit: [n E, ...]."""
        return repeat(self.of(tensor)[:, 0], "n ... -> (n e) ...", e=self.group - 1)

    def edits_of(self, tensor: Tensor) -> Tensor:
        """The edits' rows: [n E, ...]."""
        return rearrange(self.of(tensor)[:, 1:], "n e ... -> (n e) ...")

    def values(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Of the edits' rows, for the source's map and for their own; v [n, E, L, C], or a context repeated."""
        assert self.alpha is not None
        length = self.edits.g.shape[-1]
        times, rest = divmod(v.shape[2], length)
        if rest:
            raise ValueError(
                f"Prompt-to-Prompt got {v.shape[2]} tokens in the cross attention, expected {length} or a multiple: "
                "take away the node that adds tokens to the prompt inside the model."
            )
        of_source, of_target = self.edits.values(v[:, :, :length], self.alpha)
        of_source, of_target = (
            repeat(rows, "n e length c -> n e (times length) c", times=times) for rows in (of_source, of_target)
        )
        return of_source, of_target


class LocatedWords:
    """Where the chosen words are, summed over layers and steps so far."""

    def __init__(self, plan: EditPlan, noise: Tensor):
        self.plan = plan
        self.size: tuple[int, int] = (noise.shape[2], noise.shape[3])
        self.maps: Tensor | None = None

    def add(self, attention: Tensor, level: int) -> None:
        """attention [n, 1 + E, pixels] of a layer where the latent was halved `level` times."""
        height, width = sides(self.size, level)
        if attention.shape[-1] == height * width:  # not so where another node cuts pictures into tiles
            maps = rearrange(attention, "n row (h w) -> n row h w", h=height, w=width)
            self.maps = maps if self.maps is None else self.maps + maps

    def mask(self) -> Tensor | None:
        """Where the edits may differ from their source, as `blend_mask` returns it; None before the first UNet call."""
        return None if self.maps is None else blend_mask(self.maps, self.size, self.plan.threshold)


def sides(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Height and width of a latent after `level` halvings, which round up."""
    height, width = size
    return -(-height // 2**level), -(-width // 2**level)
