"""Prompt-to-Prompt: edit a picture by editing its prompt."""

from typing import Any, Literal

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_api.latest import io
from torch import Tensor

from ..perflow_core.editing.prompt_tokens import parse_emphasis, parse_phrases
from ..perflow_core.editing.token_edit import stacked
from .comfyui import node_text, shared_inputs
from .comfyui.editing.attention_editing import with_editing
from .comfyui.editing.edit_plan import KEY, EditPlan
from .comfyui.editing.prompt_edits import Kind, described, marked, read_edits
from .comfyui.editing.prompt_reading import encode_batch, phrase, read_prompt


class PeRFlowPromptToPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowPromptToPrompt",
            display_name="Prompt-to-Prompt",
            category="PeRFlow",
            description="Edits a picture by changing its prompt. The source and its edits are one batch, and the edits "
            "keep the source's layout because they look where it looks (Hertz et al. 2022). For SD1.5, SD2.x and SDXL, "
            "with or without PeRFlow.",
            search_aliases=["p2p", "prompt editing", "edit by words", "attention control", "local blend", "reweight"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD1.5, SD2.x or SDXL model, PeRFlow or not. LoRAs and IP-Adapter may come before or "
                    "after this node.",
                ),
                io.Clip.Input("clip", tooltip="The text model of the same checkpoint."),
                io.Latent.Input(
                    "latent",
                    tooltip="Where the source starts: an empty latent, or a picture turned back into noise. Each of "
                    "its pictures becomes a source and its edits, all with the same noise.",
                ),
                io.String.Input(
                    "source",
                    multiline=True,
                    default="",
                    tooltip="The prompt of the picture that is edited. ComfyUI's weights, (word:1.2), may be used.",
                ),
                io.String.Input(
                    "edited",
                    multiline=True,
                    default="",
                    tooltip="The prompts after the edit, one a line; each becomes a picture. Empty lines do not "
                    "count. Without any, the source is repeated, to use emphasis alone.",
                ),
                io.Combo.Input(
                    "edit",
                    options=["auto", "replace", "refine"],
                    default="auto",
                    tooltip="replace: every word takes the place of the word at its position; needs equal numbers of "
                    "words. refine: common words keep their places, new words find their own. auto: replace where the "
                    "numbers are equal, else refine.",
                ),
                shared_inputs.share(
                    "cross_steps",
                    0.5,
                    "For which share of the steps, from the first, words stay where the source has them. 0.5 "
                    "is 2 of 4 steps, 0.8 is all of them. Less lets the edit change more.",
                ),
                shared_inputs.share(
                    "self_steps",
                    0.4,
                    "For which share of the steps, from the first, shapes and layout are the source's. 0.4 is "
                    "1 of 4 steps. Less lets the edit change shapes.",
                ),
                io.String.Input(
                    "emphasis",
                    default="",
                    tooltip='Words of the edits with a factor for the attention they get: "snowy 2, red 0.5". Acts '
                    "during cross_steps.",
                ),
                io.String.Input(
                    "blend",
                    default="",
                    tooltip='Words whose place may change: "cat, dog". Everything else stays the source, pixel for '
                    "pixel of the latent. Empty: the whole picture may change.",
                ),
                shared_inputs.share(
                    "blend_threshold",
                    0.3,
                    "A place belongs to the words of blend if its attention to them is at least this share of the "
                    "highest. Less lets more of the picture change.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.Conditioning.Output(display_name="positive"),
                io.Latent.Output(),
            ],
            **node_text.shows_text(),
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        latent: dict[str, Any],
        source: str,
        edited: str,
        edit: Literal["auto"] | Kind,
        cross_steps: float,
        self_steps: float,
        emphasis: str,
        blend: str,
        blend_threshold: float,
    ) -> io.NodeOutput:
        shared_inputs.check_ranges(
            cls, edit=edit, cross_steps=cross_steps, self_steps=self_steps, blend_threshold=blend_threshold
        )
        check_model(model, clip)
        original = read_prompt(clip, source)
        lines = [line.strip() for line in edited.splitlines() if line.strip()] or [source]
        factors = [(text, phrase(clip, text), factor) for text, factor in parse_emphasis(emphasis)]
        places = [(text, phrase(clip, text)) for text in parse_phrases(blend)]
        edits = read_edits(original, [read_prompt(clip, line) for line in lines], edit, factors)
        prompts = [original, *(one.target for one in edits)]
        conditioning = encode_batch(clip, prompts)
        length = conditioning[0][0].shape[1]
        plan = EditPlan(
            stacked([one.on_context(original, length) for one in edits]),
            cross_steps,
            self_steps,
            marked(prompts, [words for _, words in places], length),
            blend_threshold,
        )
        positive = [[cond, options | {KEY: plan}] for cond, options in conditioning]
        text = described(original, edits, factors, places, edit)
        latents = repeat_latent(latent, plan.rows)
        return io.NodeOutput(with_editing(model), positive, latents, ui=node_text.show(cls, text))


def check_model(model: ModelPatcher, clip: CLIP | None) -> None:
    if not isinstance(getattr(model.model, "diffusion_model", None), UNetModel):
        raise ValueError(
            f"Prompt-to-Prompt got a model without Stable Diffusion's UNet ({type(model.model).__name__}), expected "
            "SD1.5, SD2.x or SDXL: load such a model."
        )
    if clip is None:
        raise ValueError(
            "Prompt-to-Prompt got no clip, expected a text model: the checkpoint has none, so load one with Load CLIP."
        )


def repeat_latent(latent: dict[str, Any], rows: int) -> dict[str, Any]:
    """Every picture `rows` times in a row, with one noise for all of them (`batch_index`)."""
    samples: Tensor = latent["samples"]
    index = latent.get("batch_index") or range(len(samples))
    repeated = dict(latent) | {
        "samples": samples.repeat_interleave(rows, dim=0),
        "batch_index": [i for i in index for _ in range(rows)],
    }
    mask = latent.get("noise_mask")
    if mask is not None and len(mask) > 1:
        repeated["noise_mask"] = torch.repeat_interleave(mask, rows, dim=0)
    return repeated
