"""What the dataset nodes give, lists of LATENTs and CONDITIONINGs, as examples to train on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import torch
from comfy.conds import CONDRegular
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .training_unet import Conditions

Shapes = tuple[torch.Size, ...]  # of the parts of a latent, without the batch
Entry = list[Any]  # [embedding, options], one prompt of a CONDITIONING
RATIOS = ("downscale_ratio_spacial", "downscale_ratio_temporal")  # of the model that an empty latent was made for
GUIDANCE = "guidance"  # what models of Flux' kind are given beside the prompt
UNUSABLE = ("control", "gligen", "hooks", "area", "mask")


class Together(NamedTuple):
    """Rows of a batch that one call of the UNet can take, and what it is given for them."""

    rows: list[int]
    conditions: Conditions


class Examples:
    """Latents in the UNet's scale, each with its prompt, and what a prompt is replaced by when it is dropped.

    latents: [C, ...] each, or [1, N] where a latent has several parts, whose shapes are in `shapes`.
    """

    def __init__(
        self,
        model: ModelPatcher,
        latents: Sequence[dict[str, Any]],
        positive: Sequence[Sequence[Entry]],
        negative: Sequence[Sequence[Entry]] | None,
        guidance_up_to: float = 0.0,
    ):
        self.model = model.model
        self.together = True  # False for a model that takes one prompt in a call
        self.latents, self.shapes = _latents(model, latents)
        self.positive = _prompts(positive, len(self.latents), "positive")
        self.negative = _prompts(negative, len(self.latents), "negative") if negative else None
        network = model.model.diffusion_model
        self.takes_guidance = bool(getattr(getattr(network, "params", None), "guidance_embed", False))
        if guidance_up_to and not self.takes_guidance:
            raise ValueError(
                f"guidance_up_to is {guidance_up_to:g}, and this model ({type(self.model).__name__}) does not take "
                "guidance as an input, expected 0: set guidance_up_to to 0; for CFG use guidance."
            )
        self.guidance_up_to = guidance_up_to
        self.embedded_guidance: set[float] = set()  # what the model was given so far, or the ends of its range

    @property
    def missing(self) -> list[int]:
        """The examples without a picture (Empty Latent Image), which the teacher draws."""
        return [i for i, latent in enumerate(self.latents) if not latent.any()]

    @property
    def groups(self) -> list[list[int]]:
        """The examples of each size, by index."""
        by_shape: dict[Shapes, list[int]] = {}
        for i, shapes in enumerate(self.shapes):
            by_shape.setdefault(shapes, []).append(i)
        return list(by_shape.values())

    def x0(self, examples: Sequence[int]) -> Tensor:
        """[B, C, ...]."""
        return torch.stack([self.latents[i] for i in examples])

    def conditions(
        self, examples: Sequence[int], dropped: Sequence[bool], device: torch.device, guidance: Sequence[float] = ()
    ) -> list[Together]:
        """What the UNet is given for the examples' prompts beside latent and timestep, as ComfyUI encodes it.

        guidance: where each row's is between its prompt's own, 0, and `guidance_up_to`, 1. The rows whose conditions
        fit into one batch are together; those of prompts of unequal length may not.
        """
        groups: list[tuple[list[int], list[dict[str, Any]]]] = []
        for row, (i, drop) in enumerate(zip(examples, dropped, strict=True)):
            encoded = self._encoded(i, drop, device)
            if guidance:
                self._draw_guidance(encoded, guidance[row])
            fitting = (group for group in groups if self.together and _fit_together(group[1][0], encoded))
            rows, those = next(fitting, ([], []))
            if not rows:
                groups.append((rows, those))
            rows.append(row)
            those.append(encoded)
        return [Together(rows, comfy.samplers.cond_cat(those)) for rows, those in groups]

    def _draw_guidance(self, encoded: dict[str, Any], place: float) -> None:
        """In place of its prompt's own guidance; a prompt may be without any."""
        if not self.takes_guidance or GUIDANCE not in encoded:
            return
        own = encoded[GUIDANCE].cond
        self.embedded_guidance.add(float(own))
        if self.guidance_up_to:
            self.embedded_guidance.add(self.guidance_up_to)
            encoded[GUIDANCE] = CONDRegular(torch.lerp(own, torch.full_like(own, self.guidance_up_to), place))

    def _encoded(self, i: int, dropped: bool, device: torch.device) -> dict[str, Any]:
        prompts = self.negative if dropped and self.negative is not None else self.positive
        noise = self.latents[i][None].to(device)
        (entry,) = comfy.samplers.encode_model_conds(
            self.model.extra_conds,
            comfy.sampler_helpers.convert_cond([prompts[i]]),
            noise,
            device,
            "negative" if dropped else "positive",
            latent_image=noise,
            latent_shapes=[torch.Size([1, *shape]) for shape in self.shapes[i]],
        )
        return {key: cond.process_cond(batch_size=1, area=None) for key, cond in entry["model_conds"].items()}


def _fit_together(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[key].can_concat(other[key]) for key in one)


def _latents(model: ModelPatcher, latents: Sequence[dict[str, Any]]) -> tuple[list[Tensor], list[Shapes]]:
    """Each as one tensor, and the shapes of its parts: a video and its sound are packed as ComfyUI's samplers do it."""
    channels = model.model.latent_format.latent_channels
    found, shapes = [], []
    for latent in latents:
        # As samplers take them: an empty one of another model's, and a picture where the model knows videos.
        ratios = {name: latent[name] for name in RATIOS if name in latent}
        samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"], **ratios)
        parts = samples.unbind() if samples.is_nested else [samples]
        dimensions = model.model.latent_format.latent_dimensions
        if parts[0].ndim != 2 + dimensions or parts[0].shape[1] != channels:
            raise ValueError(
                f"A latent has shape {tuple(parts[0].shape)}, expected (pictures, {channels}, "
                f"{('frames, ' if dimensions == 3 else '') + 'height, width' if dimensions > 1 else 'length'}): encode "
                "the pictures with the VAE of this model's family."
            )
        packed = comfy.utils.pack_latents(parts)[0] if len(parts) > 1 else parts[0]
        if not packed.isfinite().all():
            raise ValueError("A latent holds NaN or Inf, expected finite numbers: encode the pictures again.")
        for sample in packed.float().cpu():  # an empty one stays so
            found.append(model.model.process_latent_in(sample[None].clone())[0] if sample.any() else sample)
            shapes.append(tuple(part.shape[1:] for part in parts))
    if not found:
        raise ValueError("There are no latents, expected at least one picture to learn from: connect VAE Encode.")
    return found, shapes


def _prompts(conditionings: Sequence[Sequence[Entry]], count: int, name: str) -> list[Entry]:
    entries = [entry for conditioning in conditionings for entry in conditioning]
    for tokens, options in entries:
        if not tokens.isfinite().all():
            raise ValueError(f"{name} holds NaN or Inf, expected finite numbers: encode the prompts again.")
        used = [key for key in UNUSABLE if options.get(key) is not None]
        if used:
            raise ValueError(
                f"{name} carries {', '.join(used)}, expected prompts alone: connect CLIP Text Encode without "
                "ControlNet, areas, masks or hooks."
            )
    if len(entries) == 1:
        return entries * count
    if len(entries) != count:
        raise ValueError(
            f"{name} has {len(entries)} prompts for {count} pictures, expected one for all or one for each: Make "
            "Training Dataset gives both in the same order."
        )
    return entries
