"""The flow model of small_model by ComfyUI's loader, with the deltas on it that Train PeRFlow Delta wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trial.small_models.trained import SD3_WIDTHS, flow_checkpoint, make_flow_checkpoint, make_flow_delta

from ..networks.text_model import PLACES, POSITIONS, pooled
from .cells import BASE, DELTA, FLOW, REFLOW, UNALIGNED, Model
from .sampling import Texts, with_delta
from .stored_models import StoredModels


class FlowModels(StoredModels):
    """The SD3.5-like ones. Captions have PLACES places, the last of which counts as all that follow: it is quicker."""

    family = FLOW
    FILES = MappingProxyType(
        {
            BASE: "flow_teacher",
            DELTA: "flow_delta",
            UNALIGNED: "flow_delta",
            REFLOW: "flow_reflow",
            "autoencoder": "flow_autoencoder",
        }
    )

    def __init__(self, comfyui: Any, folder: Path, precision: torch.dtype = torch.float32) -> None:
        import comfy.latent_formats

        super().__init__(comfyui, folder, precision)
        self.latent_format = comfy.latent_formats.SD3()

    def texts(self) -> Texts:
        return FlowTexts()

    def checkpoint(self, path: Path) -> Path:
        return make_flow_checkpoint(path, self.folder)

    def delta(self, path: Path) -> Path:
        return make_flow_delta(path, self.folder)

    def _make(self, model: Model) -> Any:
        if model.delta:
            align = model.delta == DELTA
            return with_delta(self._nodes, self[Model(model.root)], self._plain(model.delta), align)
        import comfy.sd

        (transformer,) = self.weights(BASE, "unet")
        parts = self.weights("autoencoder", "encoder", "decoder")
        named = {
            f"{part}.{k}": v
            for part, found in zip(("encoder", "decoder"), parts, strict=True)
            for k, v in found.items()
        }
        file = flow_checkpoint(transformer, named, self._for_comfyui / "flow.safetensors")
        how = dict(output_vae=False, output_clip=False, model_options={"dtype": self.precision})
        loaded = comfy.sd.load_checkpoint_guess_config(str(file), **how)[0]
        loaded.model_options["transformer_options"]["optimized_attention_override"] = counting_places
        return loaded


def counting_places(
    attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **named: Any
) -> Tensor:
    """softmax(q k^T / sqrt(d) + log n) v, n: how often a token is there. The caption's tokens come first."""
    count = q.new_zeros(k.shape[1])
    count[PLACES - 1] = math.log(POSITIONS - PLACES + 1)
    return attention(q, k, v, *args, mask=count.expand(q.shape[1], -1), **named)


class FlowTexts(Texts):
    """As SD3 has them where there is CLIP-L alone: not normed, and pooled as well."""

    def __init__(self) -> None:
        super().__init__()
        self._words, self._positions = (vectors.half().float() for vectors in (self._words, self._positions))

    def __call__(self, captions: Sequence[str]) -> list[Any]:
        tokens = torch.tensor(self.tokens(captions))
        context = self._words[tokens[:, :PLACES]] + self._positions[:PLACES]
        end = pooled(tokens, self._words, self._positions)
        wide, wide_end = (width - context.shape[-1] for width in SD3_WIDTHS.values())
        return [[pad(context, (0, wide)), {"pooled_output": pad(end, (0, wide_end))}]]
