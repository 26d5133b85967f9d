"""The weights of a diffusers transformer by the names of the model's authors, which ComfyUI and its LoRA loader have.

Where the authors have one layer, diffusers may have several: q, k and v of an attention are the rows of one qkv, one
below the other. Of some modulations diffusers has the scale before the shift, and the authors the other way round.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .lora_file import PEFT_DOWN, PEFT_UP, lora_names, lora_pair
from .unet_layout import UNetLayout

MODEL = "diffusion_model."  # how ComfyUI's names in LoRA files begin
BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")  # the first in a name is the block's number
KINDS = ("weight", "bias")  # of a layer; a tensor of another name is known by the whole of it
Table = Mapping[tuple[str, str], Mapping[str, str]]

# How the authors' names and diffusers' begin, with # for the number of a block, and how they go on: the authors' name,
# and in the order of its rows the names of diffusers. What is in no table has one name.
SD3: Table = {
    ("", ""): {
        "x_embedder.proj": "pos_embed.proj",
        "pos_embed": "pos_embed.pos_embed",
        "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
        "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
        "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
        "final_layer.linear": "proj_out",
    },
    ("joint_blocks.#.x_block.", "transformer_blocks.#."): {
        "adaLN_modulation.1": "norm1.linear",
        "attn.qkv": "attn.to_q attn.to_k attn.to_v",
        "attn.ln_q": "attn.norm_q",
        "attn.ln_k": "attn.norm_k",
        "attn.proj": "attn.to_out.0",
        "attn2.qkv": "attn2.to_q attn2.to_k attn2.to_v",
        "attn2.ln_q": "attn2.norm_q",
        "attn2.ln_k": "attn2.norm_k",
        "attn2.proj": "attn2.to_out.0",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
    },
    ("joint_blocks.#.context_block.", "transformer_blocks.#."): {
        "adaLN_modulation.1": "norm1_context.linear",
        "attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        "attn.ln_q": "attn.norm_added_q",
        "attn.ln_k": "attn.norm_added_k",
        "attn.proj": "attn.to_add_out",
        "mlp.fc1": "ff_context.net.0.proj",
        "mlp.fc2": "ff_context.net.2",
    },
}
FLUX: Table = {
    ("", ""): {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
        "final_layer.linear": "proj_out",
    },
    ("double_blocks.#.img_", "transformer_blocks.#."): {
        "mod.lin": "norm1.linear",
        "attn.qkv": "attn.to_q attn.to_k attn.to_v",
        "attn.norm.query_norm": "attn.norm_q",
        "attn.norm.key_norm": "attn.norm_k",
        "attn.proj": "attn.to_out.0",
        "mlp.0": "ff.net.0.proj",
        "mlp.2": "ff.net.2",
    },
    ("double_blocks.#.txt_", "transformer_blocks.#."): {
        "mod.lin": "norm1_context.linear",
        "attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        "attn.norm.query_norm": "attn.norm_added_q",
        "attn.norm.key_norm": "attn.norm_added_k",
        "attn.proj": "attn.to_add_out",
        "mlp.0": "ff_context.net.0.proj",
        "mlp.2": "ff_context.net.2",
    },
    ("single_blocks.#.", "single_transformer_blocks.#."): {
        "modulation.lin": "norm.linear",
        "linear1": "attn.to_q attn.to_k attn.to_v proj_mlp",
        "linear2": "proj_out",
        "norm.query_norm": "attn.norm_q",
        "norm.key_norm": "attn.norm_k",
    },
}
_Z_IMAGE_BLOCK = {
    "attention.qkv": "attention.to_q attention.to_k attention.to_v",
    "attention.q_norm": "attention.norm_q",
    "attention.k_norm": "attention.norm_k",
    "attention.out": "attention.to_out.0",
}
Z_IMAGE: Table = {
    ("x_embedder", "all_x_embedder.2-1"): {"": ""},
    ("final_layer.", "all_final_layer.2-1."): {"linear": "linear", "adaLN_modulation.1": "adaLN_modulation.1"},
    **{(f"{blocks}.#.",) * 2: _Z_IMAGE_BLOCK for blocks in ("noise_refiner", "context_refiner", "layers")},
}
WAN: Table = {
    ("", ""): {
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
        "head.modulation": "scale_shift_table",
    },
    ("blocks.#.", "blocks.#."): {
        "ffn.0": "ffn.net.0.proj",
        "ffn.2": "ffn.net.2",
        "norm3": "norm2",
        "modulation": "scale_shift_table",
    },
    **{
        (f"blocks.#.{authors}.", f"blocks.#.{theirs}."): {
            "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k",
        }
        for authors, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
    },
}  # fmt: skip


@dataclass(frozen=True)
class TransformerNames:
    """swapped: diffusers' layers of which the two halves of the rows, scale and shift, change places."""

    table: Table
    swapped: frozenset[str] = frozenset()

    def low_rank(self, weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """The LoRA file of peft's adapter "default"; weights: the transformer's, of which the others are left out.

        The adapters of layers that are one for the authors become one, of the sum of their ranks and the same product.
        """
        downs = {key.removesuffix(PEFT_DOWN): down for key, down in weights.items() if key.endswith(PEFT_DOWN)}
        ups = {layer: self._rows(layer, weights[layer + PEFT_UP]) for layer in downs}
        tensors: dict[str, Tensor] = {}
        for name, layers in self._grouped(downs):
            up = _on_the_diagonal([ups[layer] for layer in layers])
            down = torch.cat([downs[layer] for layer in layers])
            tensors |= lora_pair(MODEL + name, up.to(dtype), down.to(dtype))
        return tensors

    def whole(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The transformer's weights, or differences of them, by the authors' names below ComfyUI's prefix."""
        return {
            name: torch.cat([self._rows(_layer(key)[0], weights[key]) for key in keys])
            for name, keys in self.parts(weights).items()
        }

    def layout(self, weights: Mapping[str, Tensor], architecture: str) -> UNetLayout:
        """Of the transformer by the authors' names, which files have; weights: diffusers'."""
        own = self.whole({key: torch.empty_like(weight, device="meta") for key, weight in weights.items()})
        layers = {key: key.removeprefix(MODEL).removesuffix(".weight") for key in own}
        return UNetLayout(
            shapes={key: tuple(weight.shape) for key, weight in own.items()},
            dtypes={key: weight.dtype for key, weight in own.items()},
            names={key.removeprefix(MODEL): key for key in own},
            modules={
                name: key for key, layer in layers.items() for name in lora_names(layer) if not key.endswith(".bias")
            },
            architecture=architecture,
        )

    def parts(self, weights: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The authors' names below ComfyUI's prefix, each with diffusers' weights that it is made of."""
        by_kind: dict[str, dict[str, None]] = {}
        for key in weights:
            layer, kind = _layer(key)
            by_kind.setdefault(kind, {})[layer] = None
        return {
            MODEL + name + kind: tuple(layer + kind for layer in layers)
            for kind, of_layers in by_kind.items()
            for name, layers in self._grouped(of_layers)
        }

    def apart(self, weight: Tensor, rows: Mapping[str, int]) -> dict[str, Tensor]:
        """The way back from `whole` for one weight of the authors; rows: how many each of its `parts` has, in order."""
        pieces = zip(rows, torch.split(weight, list(rows.values())), strict=True)
        return {key: self._rows(_layer(key)[0], piece) for key, piece in pieces}

    def _grouped(self, layers: Mapping[str, object]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The authors' layers, each with diffusers' that it is made of. Raises ValueError where some of them lack."""
        found: dict[str, tuple[str, ...]] = {}
        for layer in layers:
            pattern, number = _numberless(layer)
            name, parts = self._by_diffusers.get(pattern, (pattern, (pattern,)))
            found[name.replace("#", number)] = tuple(part.replace("#", number) for part in parts)
        for name, parts in found.items():
            if not layers.keys() >= set(parts):
                raise ValueError(f"{name} is made of {', '.join(parts)}, which are not all there.")
            yield name, parts

    @cached_property
    def _by_diffusers(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """diffusers' layer -> the authors', and all layers of diffusers that it is made of."""
        found: dict[str, tuple[str, tuple[str, ...]]] = {}
        for (authors, theirs), names in self.table.items():
            for name, parts in names.items():
                group = tuple(theirs + part for part in parts.split(" "))
                found |= dict.fromkeys(group, (authors + name, group))
        return found

    def _rows(self, layer: str, weight: Tensor) -> Tensor:
        return torch.cat(weight.chunk(2)[::-1]) if layer in self.swapped else weight


def _layer(key: str) -> tuple[str, str]:
    """The layer of a weight, and what comes after it; of what is no layer's the whole name, and nothing."""
    layer, _, kind = key.rpartition(".")
    return (layer, f".{kind}") if kind in KINDS else (key, "")


def _on_the_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """One matrix of matrices, with zeros elsewhere."""
    together: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return together


def _numberless(name: str) -> tuple[str, str]:
    """A name with # for its block's number, and that number."""
    found = BLOCK.search(name)
    return (BLOCK.sub("#", name, count=1), found[0]) if found else (name, "")
