"""Prompt-to-Prompt inside ComfyUI: wrappers that hand edited attention to whichever UNet call holds the edit's prompts.

The edit travels with the CONDITIONING, so it is found whatever the guider, the order of the batch and its splitting
are. Attention that other nodes have replaced (IP-Adapter) is called, not replaced, whether they come before or after.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple
from uuid import UUID

import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ..perflow_core.edit_schedule import cross_alpha, self_steps, step_of
from ..perflow_core.local_blend import blend, blend_mask
from ..perflow_core.token_edit import TokenEdit

KEY = "prompt_to_prompt"
QUARTER = 2  # how often the latent was halved where self attention is edited and words are located: 16 x 16 of 64 x 64

Attention = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]
Options = dict[str, Any]


@dataclass(frozen=True, eq=False)
class EditPlan:
    """What one node asks for; it rides on the CONDITIONING. Rows: the source, then E edits."""

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


def with_editing(model: ModelPatcher) -> ModelPatcher:
    """A clone that carries out the edits of its CONDITIONING, and samples as before without one."""
    edited = model.clone()
    for kind, wrapper in (
        (WrappersMP.SAMPLER_SAMPLE, prepare_run),
        (WrappersMP.PREDICT_NOISE, blend_pictures),
        (WrappersMP.DIFFUSION_MODEL, edit_attention),
    ):
        edited.remove_wrappers_with_key(kind, KEY)
        edited.add_wrapper_with_key(kind, KEY, wrapper)
    return edited


def prepare_run(
    executor: WrapperExecutor,
    guider: Any,
    sigmas: Tensor,
    extra_args: Options,
    callback: Any,
    noise: Tensor,
    *args: Any,
) -> Tensor:
    """SAMPLER_SAMPLE wrapper: finds the edits among the prompts and checks that the batch fits them."""
    conds = [cond for conds in guider.conds.values() for cond in conds if KEY in cond]
    for cond in conds:
        _check(cond, len(noise))
    if conds:
        options = extra_args["model_options"].setdefault("transformer_options", {})
        options[KEY] = EditingRun({cond["uuid"]: cond[KEY] for cond in conds}, sigmas, noise)
    return executor(guider, sigmas, extra_args, callback, noise, *args)


def _check(cond: Options, pictures: int) -> None:
    plan: EditPlan = cond[KEY]
    shape = tuple(cond["cross_attn"].shape[:2])
    if pictures % plan.rows:
        raise ValueError(
            f"Prompt-to-Prompt has a source and {plan.rows - 1} edits and the latent {pictures} pictures, expected "
            f"{plan.rows} or a multiple: connect the node's latent to the sampler."
        )
    if shape != (plan.rows, plan.length):
        raise ValueError(
            f"The positive of Prompt-to-Prompt reached the sampler with {shape[0]} prompts of {shape[1]} tokens, "
            f"expected {plan.rows} of {plan.length}: take away the node between them that joins prompts."
        )


def blend_pictures(
    executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None
) -> Tensor:
    """PREDICT_NOISE wrapper, for any sampler: outside the words' places the edits see and get the source's picture.

    The authors blend the latent after every step; a step from a blended latent to a blended x0 is the same.
    """
    run: EditingRun | None = model_options.get("transformer_options", {}).get(KEY)
    if run is None or run.located is None:
        return executor(x, timestep, model_options, seed)
    denoised = executor(run.located.blend(x), timestep, model_options, seed)
    return run.located.blend(denoised)


def edit_attention(
    executor: WrapperExecutor,
    x: Tensor,
    timesteps: Tensor,
    context: Tensor,
    y: Tensor | None,
    control: Any,
    transformer_options: Options,
    **kwargs: Any,
) -> Tensor:
    """DIFFUSION_MODEL wrapper: replaces the attention of this one call, where it holds prompts that are edited."""
    run: EditingRun | None = transformer_options.get(KEY)
    parts = run.parts(x, transformer_options) if run is not None else []
    if parts:
        replaced = edited_blocks(executor.class_obj, parts, transformer_options.get("patches_replace", {}))
        transformer_options = transformer_options | {"patches_replace": replaced}
    return executor(x, timesteps, context, y, control, transformer_options, **kwargs)


class EditingRun:
    """One sampling run: the plans by the prompts' ids, and what was learnt on the way."""

    def __init__(self, plans: dict[UUID, EditPlan], sigmas: Tensor, noise: Tensor):
        self.plans = plans
        self.sigmas = sigmas
        self.tables = {plan: ScheduledEdit(plan, len(sigmas) - 1) for plan in plans.values()}
        blending = next((plan for plan in plans.values() if plan.words is not None), None)
        self.located = LocatedWords(blending, noise) if blending is not None else None

    def parts(self, x: Tensor, options: Options) -> "list[EditedPart]":
        """The rows of this call that are edited: ComfyUI puts prompts into one call, or several, in any order."""
        uuids = options["uuids"]
        size = len(x) // len(uuids)
        step = step_of(options["sigmas"][0], self.sigmas)
        return [
            self.tables[self.plans[uuid]].at(step, slice(i * size, (i + 1) * size), x, self.located)
            for i, uuid in enumerate(uuids)
            if uuid in self.plans
        ]


@dataclass(eq=False)
class ScheduledEdit:
    """A plan laid over the steps of a run; its tables are moved to a device once."""

    plan: EditPlan
    steps: int
    moved: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def alpha(self) -> Tensor:
        """[n + 1]"""
        return cross_alpha(self.steps, torch.tensor([0.0, self.plan.cross_steps], dtype=torch.float64))

    @cached_property
    def self_active(self) -> Tensor:
        """[n], boolean"""
        active = torch.zeros(self.steps, dtype=torch.bool)
        active[list(self_steps(self.steps, (0.0, self.plan.self_steps)))] = True
        return active

    @cached_property
    def edits_cross(self) -> bool:
        return bool(self.alpha[: self.steps].any())

    @cached_property
    def edits_self(self) -> bool:
        return bool(self.self_active.any())

    def on(self, device: torch.device, dtype: torch.dtype) -> "tuple[TokenEdit, Tensor, Tensor, Tensor | None]":
        if (device, dtype) not in self.moved:
            edits = TokenEdit(*(table.to(dtype).to(device) for table in self.plan.edits))
            words = None if self.plan.words is None else self.plan.words.to(dtype).to(device)
            self.moved[device, dtype] = edits, self.alpha.to(dtype).to(device), self.self_active.to(device), words
        return self.moved[device, dtype]

    def at(self, step: Tensor, rows: slice, x: Tensor, located: "LocatedWords | None") -> "EditedPart":
        edits, alpha, self_active, words = self.on(x.device, x.dtype)
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
        return tensor[self.rows].view(-1, self.group, *tensor.shape[1:])

    def source(self, tensor: Tensor) -> Tensor:
        """The sources' rows, one for every edit: [n E, ...]."""
        grouped = self.of(tensor)
        return grouped[:, :1].expand_as(grouped[:, 1:]).flatten(0, 1)

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
        return of_source.repeat(1, 1, times, 1), of_target.repeat(1, 1, times, 1)


def edited_blocks(unet: UNetModel, parts: list[EditedPart], replaced: Options) -> Options:
    """`patches_replace` with every edited attention layer in it, around what other nodes have put there."""
    blocks = attention_blocks(unet)
    coarse = min(QUARTER, max((level for (place, *_), level in blocks.items() if place == "input"), default=0))
    kinds = {kind: dict(replaced.get(kind, {})) for kind in ("attn1", "attn2")}
    for key, level in blocks.items():
        before = {kind: layers.get(key, layers.get(key[:2])) for kind, layers in kinds.items()}
        if level >= coarse and any(part.self_active is not None for part in parts):
            kinds["attn1"][key] = partial(self_attention, parts=parts, before=before["attn1"])
        if any(part.alpha is not None or part.words is not None for part in parts):
            locates = level == coarse and key[0] != "middle"
            kinds["attn2"][key] = partial(
                cross_attention, parts=parts, before=before["attn2"], level=level if locates else None
            )
    return dict(replaced) | kinds


def attention_blocks(unet: UNetModel) -> dict[tuple[str, int, int], int]:
    """Every transformer block as `patches_replace` names it, and how often the latent was halved there."""
    levels, halved = [], 0
    for block in unet.input_blocks:
        halved += any(isinstance(layer, Downsample) for layer in block)
        levels.append(halved)
    stages = [("input", i, block, levels[i]) for i, block in enumerate(unet.input_blocks)]
    stages.append(("middle", 0, unet.middle_block, halved))
    stages += [("output", i, block, levels[-1 - i]) for i, block in enumerate(unet.output_blocks)]
    return {
        (place, number, index): level
        for place, number, block, level in stages
        for layer in block
        if isinstance(layer, SpatialTransformer)
        for index in range(len(layer.transformer_blocks))
    }


def self_attention(
    q: Tensor, k: Tensor, v: Tensor, extra: Options, *, parts: list[EditedPart], before: Attention | None
) -> Tensor:
    """out_t = Attn(q_s, k_s, v_t) while the step is an edited one."""
    q, k = q.clone(), k.clone()
    for part in parts:
        if part.self_active is not None:
            for tensor in (q, k):
                grouped = part.of(tensor)
                grouped[:, 1:] = torch.where(part.self_active, grouped[:, :1], grouped[:, 1:])
    return before(q, k, v, extra) if before is not None else attend(q, k, v, extra)


def cross_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    extra: Options,
    *,
    parts: list[EditedPart],
    before: Attention | None,
    level: int | None,
) -> Tensor:
    """out_t = A_s (M (alpha v_t)) + A_t ((g alpha + 1 - alpha) v_t); no map is built."""
    for part in parts:
        if level is not None and part.words is not None and part.located is not None:
            part.located.add(locate(q, k, v, extra, part), level)
    edited = [(part, *part.values(part.of(v)[:, 1:])) for part in parts if part.alpha is not None]
    if before is None:
        own = v.clone()
        for part, _, of_target in edited:
            part.of(own)[:, 1:] = of_target
        out = attend(q, k, own, extra)
    else:
        # Another node's attention is called as it is and corrected by the difference, which leaves what it adds alone.
        out = before(q, k, v, extra).clone()
        for part, _, of_target in edited:
            difference = (of_target - part.of(v)[:, 1:]).flatten(0, 1)
            _add(out, part, attend(_edits(part, q), _edits(part, k), difference, extra))
    for part, of_source, _ in edited:
        _add(out, part, attend(part.source(q), part.source(k), of_source.flatten(0, 1), extra))
    return out


def locate(q: Tensor, k: Tensor, v: Tensor, extra: Options, part: EditedPart) -> Tensor:
    """How much attention each pixel gives to the chosen words: [n, 1 + E, pixels]; edits count as edited.

    The sum of some columns of a map is that map times a vector, an attention like any other.
    """
    assert part.words is not None
    q, k, of_v = (part.of(tensor) for tensor in (q, k, v))
    times = of_v.shape[2] // part.words.shape[1]
    w = part.words.repeat(1, times)[None, :, :, None].expand_as(of_v)
    alone = part._replace(rows=slice(None), words=None)
    flat = (tensor.flatten(0, 1) for tensor in (q, k, w))
    out = cross_attention(*flat, extra=extra, parts=[alone], before=None, level=None)
    return alone.of(out.float().mean(-1))


def attend(q: Tensor, k: Tensor, v: Tensor, extra: Options) -> Tensor:
    """ComfyUI's own attention, called as its layers call it."""
    return optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )


def _edits(part: EditedPart, tensor: Tensor) -> Tensor:
    return part.of(tensor)[:, 1:].flatten(0, 1)


def _add(out: Tensor, part: EditedPart, edits: Tensor) -> None:
    grouped = part.of(out)
    grouped[:, 1:] += edits.view_as(grouped[:, 1:])


class LocatedWords:
    """Where the chosen words are, summed over layers and steps so far."""

    def __init__(self, plan: EditPlan, noise: Tensor):
        self.plan = plan
        self.size: tuple[int, int] = (noise.shape[2], noise.shape[3])
        self.maps: Tensor | None = None

    def add(self, attention: Tensor, level: int) -> None:
        """attention [n, 1 + E, pixels] of a layer where the latent was halved `level` times."""
        height, width = (-(-side // 2**level) for side in self.size)
        if attention.shape[-1] == height * width:  # not so where another node cuts pictures into tiles
            maps = attention.view(*attention.shape[:2], height, width)
            self.maps = maps if self.maps is None else self.maps + maps

    def blend(self, x: Tensor) -> Tensor:
        if self.maps is None:
            return x
        return blend(x, blend_mask(self.maps, self.size, self.plan.threshold))
