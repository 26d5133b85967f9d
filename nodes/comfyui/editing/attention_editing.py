"""Prompt-to-Prompt inside ComfyUI: wrappers that edit the attention of each UNet call with the edit's prompts in it.

The CONDITIONING carries the edit, so it is found with every guider, and in every order and part of the batch.
Attention that other nodes have replaced (IP-Adapter) is called, not replaced, whether they come before or after.
"""

from typing import Any
from uuid import UUID

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy.samplers import KSAMPLER
from torch import Tensor

from ....perflow_core.editing.token_edit import step_of
from .edit_plan import KEY, EditedPart, EditPlan, LocatedWords, ScheduledEdit
from .edited_attention import Blocks, Options, attention_blocks, edited_blocks
from .latent_blending import hand_over_blending


def with_editing(model: ModelPatcher) -> ModelPatcher:
    """A clone that carries out the edits of its CONDITIONING, and samples as before without one."""
    edited = model.clone()
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, hand_over_blending),
        (WrappersMP.SAMPLER_SAMPLE, prepare_run),
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
        options[KEY] = run = EditingRun({cond["uuid"]: cond[KEY] for cond in conds}, sigmas, noise)
        if run.located is not None and not isinstance(executor.class_obj, KSAMPLER):
            raise ValueError(
                f"Prompt-to-Prompt cannot blend in the sampler {type(executor.class_obj).__name__}, expected one of "
                "ComfyUI's kind (KSAMPLER): take another sampler, or leave blend empty."
            )
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
    if run is not None and (parts := run.parts(x, transformer_options)):
        blocks, size = run.blocks(executor.class_obj), (x.shape[2], x.shape[3])
        replaced = edited_blocks(blocks, size, parts, transformer_options.get("patches_replace", {}))
        transformer_options = transformer_options | {"patches_replace": replaced}
    return executor(x, timesteps, context, y, control, transformer_options, **kwargs)


class EditingRun:
    """One sampling run: the plans by the prompts' ids, and what has been found for them."""

    def __init__(self, plans: dict[UUID, EditPlan], sigmas: Tensor, noise: Tensor):
        self.plans = plans
        self.sigmas = sigmas
        self.tables = {plan: ScheduledEdit(plan, len(sigmas) - 1) for plan in plans.values()}
        blending = next((plan for plan in plans.values() if plan.words is not None), None)
        self.located = LocatedWords(blending, noise) if blending is not None else None
        self._blocks: Blocks = {}

    def blocks(self, unet: UNetModel) -> Blocks:
        """Looked for once a run: the UNet's layout does not change."""
        self._blocks = self._blocks or attention_blocks(unet)
        return self._blocks

    def parts(self, x: Tensor, options: Options) -> list[EditedPart]:
        """The rows of this call that are edited: ComfyUI puts prompts into one call, or several, in any order."""
        uuids = options["uuids"]
        size = len(x) // len(uuids)
        step = step_of(options["sigmas"][0], self.sigmas)
        return [
            self.tables[self.plans[uuid]].at(step, slice(i * size, (i + 1) * size), x, self.located)
            for i, uuid in enumerate(uuids)
            if uuid in self.plans
        ]
