"""Small LoRA, LoHa and LoKr files under the names that people's files have, and what they add to a model by hand."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

RANK = 4
ALPHA = 2.0
SIZE = 0.05  # about that of the weights themselves, so that a LoRA is seen
MODULES = {  # what diffusers calls them -> what ComfyUI does
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": "input_blocks.1.1.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": "middle_block.1.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_v": "output_blocks.1.1.transformer_blocks.0.attn2.to_v",
}


def kohya(theirs: str, ours: str) -> str:
    return "lora_unet_" + theirs.replace(".", "_")


def comfyui(theirs: str, ours: str) -> str:
    return "diffusion_model." + ours


def diffusers(theirs: str, ours: str) -> str:
    return "unet." + theirs.replace(".to_", ".processor.to_").removesuffix(".0")


NAMES: dict[str, Callable[[str, str], str]] = {"kohya": kohya, "diffusers": diffusers, "ComfyUI": comfyui}


def lora(random: Callable[..., Tensor], out: int, inner: int) -> tuple[dict[str, Tensor], Tensor]:
    """A low-rank pair, and what it adds at strength 1."""
    up, down = SIZE * random(out, RANK), random(RANK, inner)
    return {"lora_up.weight": up, "lora_down.weight": down}, ALPHA / RANK * up @ down


def loha(random: Callable[..., Tensor], out: int, inner: int) -> tuple[dict[str, Tensor], Tensor]:
    """The product, number by number, of two pairs."""
    a, b, c, d = SIZE * random(out, RANK), random(RANK, inner), random(out, RANK), random(RANK, inner)
    return {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}, ALPHA / RANK * (a @ b) * (c @ d)


def lokr(random: Callable[..., Tensor], out: int, inner: int) -> tuple[dict[str, Tensor], Tensor]:
    """The Kronecker product of a small matrix and a pair."""
    w1, a, b = SIZE * random(8, 8), random(out // 8, RANK), random(RANK, inner // 8)
    return {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b}, ALPHA / RANK * torch.kron(w1, a @ b)


KINDS = {"LoRA": lora, "LoHa": loha, "LoKr": lokr}


def write(path: Path, kind: str, names: str, weights: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Write such a file for a model of those weights; returns what it adds to each at strength 1."""
    tensors, added = {}, {}
    for theirs, ours in MODULES.items():
        key = f"diffusion_model.{ours}.weight"
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {kind} {key}".encode()))

        def random(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator)

        parts, added[key] = KINDS[kind](random, *weights[key].shape)
        module = NAMES[names](theirs, ours)
        tensors |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
        tensors[f"{module}.alpha"] = torch.tensor(ALPHA)
    if names == "diffusers" and kind == "LoRA":
        tensors = {_as_diffusers_writes(key): tensor for key, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # not over one that may still be mapped
    save_file(tensors, str(path))
    return added


def _as_diffusers_writes(key: str) -> str:
    return key.replace(".lora_up.", "_lora.up.").replace(".lora_down.", "_lora.down.")


def total(base: Mapping[str, Tensor], parts: Iterable[tuple[float, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The base plus strength times each, by hand."""
    weights = dict(base)
    for strength, part in parts:
        for key, tensor in part.items():
            weights[key] = weights[key] + strength * tensor
    return weights
