"""The small flow model with random weights, stored as small_model/trainers/pack.py stores the trained one."""

from pathlib import Path

import torch

from small_model.networks import storage
from small_model.networks.autoencoder import Decoder, Encoder
from small_model.networks.flow_transformer import CHANNELS, flow_transformer

LAYERS = {"context_block.attn.qkv": (768, 256), "x_block.attn.qkv": (768, 256), "x_block.mlp.fc1": (1024, 256)}
EDGES = {"flow_delta": "1,0.9,0.75,0.5,0", "flow_reflow": "1,0"}  # of four windows and of one, at shift 3


def low_rank(rank: int = 4) -> dict[str, torch.Tensor]:
    """Pairs as Train PeRFlow Delta writes them, of some layers, with their alphas."""
    pairs: dict[str, torch.Tensor] = {}
    for name, (out, inner) in LAYERS.items():
        layer = f"diffusion_model.joint_blocks.0.{name}"
        pairs[f"{layer}.lora_up.weight"] = 0.02 * torch.randn(out, rank)
        pairs[f"{layer}.lora_down.weight"] = torch.randn(rank, inner)
        pairs[f"{layer}.alpha"] = torch.tensor(float(rank))
    return pairs


def metadata(name: str) -> dict[str, str]:
    facts = {"format": "perflow-delta", "format_version": "1", "rank": "4", "prediction_type": "velocity"}
    edges = EDGES[name]
    return facts | {"base_prediction": "flow", "edges": edges, "windows": str(edges.count(",")), "shift": "3"}


def store(folder: Path) -> Path:
    """Write the two deltas, the transformer and the autoencoder."""
    torch.manual_seed(0)
    both = torch.nn.ModuleDict({"encoder": Encoder(CHANNELS), "decoder": Decoder(CHANNELS)})
    storage.write(flow_transformer().state_dict(), folder / "flow_teacher.safetensors", 8)
    storage.write(both.state_dict(), folder / "flow_autoencoder.safetensors", 8)
    for name in EDGES:
        storage.write(low_rank(), folder / f"{name}.safetensors", 8, metadata(name))
    return folder
