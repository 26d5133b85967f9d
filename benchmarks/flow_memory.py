"""The memory that Train PeRFlow Delta needs for published flow models, computed without their weights.

    python benchmarks/flow_memory.py [--models "Z-Image" ...] [--rank 64] [--batch 1]

ComfyUI's own networks, in bfloat16 and at their published sizes, on torch's meta device, with the node's adapters and
its recomputed blocks: one forward and backward pass, in which every tensor is counted from its making to its end.
Attention is counted as flash attention has it. Printed, in GB: the weights, with buffers; the adapters' state
(adapters, gradients and the optimizer's two averages, 16 bytes a number); the highest sum of everything else; and what
a GPU needs without and with offloading (with it, two layers of the largest size in place of the weights). CUDA takes
about 1 GB more.
"""

import argparse
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import measuring

GB = 1e9
STATE = 16  # bytes a number of the adapters


class Published(NamedTuple):
    """A model: its small layout's name in FLOWS, the numbers that differ, its latent, tokens of a prompt, and what they
    are about.
    """

    layout: str
    numbers: dict[str, Any]
    latent: tuple[int, ...]
    tokens: int
    about: str


MODELS = {
    "Z-Image": Published(
        "z-image", {"dim": 3840, "n_heads": 30, "n_kv_heads": 30, "n_layers": 30, "n_refiner_layers": 2},
        (16, 128, 128), 128, "1024 x 1024",
    ),
    "SD3.5 medium": Published(
        "sd3.5", {
            "depth": 24, "x_block_self_attn_layers": list(range(13)), "num_patches": 384**2, "pos_embed_max_size": 384,
            "context_embedder_config": {
                "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536}
            },
        }, (16, 128, 128), 154, "1024 x 1024",
    ),
    "Flux": Published(
        "flux", {"hidden_size": 3072, "num_heads": 24, "depth": 19, "depth_single_blocks": 38},
        (16, 128, 128), 256, "1024 x 1024",
    ),
    "Qwen-Image": Published(
        "qwen-image", {"num_layers": 60, "num_attention_heads": 24}, (16, 1, 128, 128), 128, "1024 x 1024"
    ),
    "Wan 2.1 1.3B": Published(
        "wan2.1", {"dim": 1536, "num_heads": 12, "ffn_dim": 8960, "num_layers": 30},
        (16, 21, 60, 104), 512, "81 frames of 832 x 480",
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    chosen = parser.parse_args()
    path = measuring.enter()
    with tempfile.TemporaryDirectory() as base:
        from trial import process

        comfyui = process.start(path, measuring.REPOSITORY, Path(base))
        print("model          what                       parameters  weights  adapters  the rest   all  offloaded")
        for name in chosen.models:
            print(row(name, measured(comfyui, MODELS[name], chosen.rank, chosen.batch)), flush=True)


def row(name: str, found: dict[str, float]) -> str:
    parts = {name: found[name] / GB for name in ("weights", "buffers", "state", "rest")}
    weights, state, rest = parts["weights"] + parts["buffers"], parts["state"], parts["rest"]
    offloaded = 2 * found["largest"] / GB + parts["buffers"] + state + rest
    return (
        f"{name:14} {MODELS[name].about:26} {found['parameters'] / 1e9:9.2f}B {weights:8.1f} {state:9.1f} {rest:9.1f} "
        f"{weights + state + rest:5.1f} {offloaded:10.1f}"
    )


def measured(comfyui: Any, published: Published, rank: int, batch: int) -> dict[str, float]:
    """Bytes, and the number of parameters."""
    import comfy.model_management
    import torch
    from trial.small_models.flows import FLOWS

    adapters_of = comfyui.module("nodes.comfyui.training.adapters").Adapters
    blocks_recomputed = comfyui.module("nodes.comfyui.training.recomputing").blocks_recomputed
    model = on_meta(published, FLOWS[published.layout])
    weights = list(model.model.diffusion_model.parameters())
    adapters = adapters_of(model, rank, 0)
    for handle in adapters.hook():
        weakref.finalize(model, handle.remove)
    adapters.on = True
    z = torch.empty(batch, *published.latent, dtype=torch.bfloat16, device="meta")
    given = conditions(published, batch)
    comfy.model_management.in_training = True
    kept = mock.patch.object(torch.autograd.graph, "allow_mutation_on_saved_tensors", all_kept)
    known = [*weights, *model.model.diffusion_model.buffers(), *adapters.parameters]
    with kept, Live(known) as live, torch.enable_grad(), blocks_recomputed(model.model.diffusion_model):
        options = {"optimized_attention_override": flash_attention}
        output = model.model.diffusion_model(z, torch.empty(batch, device="meta"), transformer_options=options, **given)
        output.float().square().mean().backward()
    comfy.model_management.in_training = False
    numbers = sum(half.numel() for half in adapters.parameters)
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "weights": sum(weight.nbytes for weight in weights),
        "buffers": sum(buffer.nbytes for buffer in model.model.diffusion_model.buffers()),
        "largest": max(weight.nbytes for weight in weights),
        "state": STATE * numbers,
        "rest": live.highest - 4 * numbers,  # the gradients are in the state
    }


def on_meta(published: Published, layout: Any) -> Any:
    """A MODEL of the published size whose tensors have shapes only."""
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    config = getattr(comfy.supported_models, layout.kind)(layout.config | published.numbers)
    config.set_inference_dtype(torch.bfloat16, None)
    meta = torch.device("meta")
    model = config.get_model({}, device=meta)
    for weight in model.diffusion_model.parameters():
        weight.requires_grad_(False)
    return comfy.model_patcher.ModelPatcher(model, load_device=meta, offload_device=meta)


def conditions(published: Published, batch: int) -> dict[str, Any]:
    """What the network is called with beside latent and time."""
    import torch

    def tensor(*shape: int) -> Any:
        return torch.empty(batch, *shape, dtype=torch.bfloat16, device="meta")

    widths = {"sd3.5": 4096, "flux": 4096, "z-image": 2560, "qwen-image": 3584, "wan2.1": 4096}
    found: dict[str, Any] = {"context": tensor(published.tokens, widths[published.layout])}
    if published.layout in ("sd3.5", "flux"):
        found["y"] = tensor(2048 if published.layout == "sd3.5" else 768)
    if published.layout == "flux":
        found["guidance"] = tensor()
    if published.layout == "z-image":
        found["num_tokens"] = published.tokens
    return found


def flash_attention(attention: Any, q: Any, k: Any, v: Any, heads: int, *args: Any, **options: Any) -> Any:
    """softmax(q k) v without the matrix of all pairs."""
    import torch

    if not options.get("skip_reshape"):
        q, k, v = (part.unflatten(-1, (heads, -1)) if part.ndim == 3 else part for part in (q, k, v))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    out = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    return out if options.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


def all_kept() -> Any:
    """For blocks that write into their inputs, in place of torch's, which tells tensors by addresses: meta has none."""
    import torch

    return torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.detach(), lambda tensor: tensor)


class Live:
    """Counts the bytes of the tensors that operations make, from their making to their end; `highest` is the most."""

    def __init__(self, known: Sequence[Any]) -> None:
        self.seen = {tensor.untyped_storage()._cdata for tensor in known}
        self.now = self.highest = 0

    def __enter__(self) -> "Live":
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_leaves

        live, seen = self, self.seen

        def ended(key: int, size: int) -> None:
            seen.discard(key)
            live.now -= size

        class Counting(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                import torch

                found = func(*args, **(kwargs or {}))
                for tensor in tree_leaves(found):
                    if not isinstance(tensor, torch.Tensor):
                        continue
                    storage = tensor.untyped_storage()
                    key, size = storage._cdata, storage.nbytes()
                    if key not in seen and size:
                        seen.add(key)
                        live.now += size
                        weakref.finalize(storage, ended, key, size)
                        live.highest = max(live.highest, live.now)
                return found

        self._mode = Counting()
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)


if __name__ == "__main__":
    main()
