"""Train the flow model: velocities of the latents of drawn pictures. It goes on from its last state.

`python -m small_model.trainers.train_flow FOLDER --tokenizer FOLDER --pictures 48000 --minutes 60`, after
train_autoencoder --channels 16 in the same folder; otherwise as train_teacher.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor
from transformers import CLIPTokenizer

from ..networks.flow_transformer import MULTIPLIER, flow_transformer
from ..networks.text_model import PLACES, pooled
from .dataset import latents_of
from .devices import DEVICE, broadcast, placed, processes
from .muon import optimizers_of
from .train_teacher import BATCH, Batch, Batches, learn
from .training_loop import arguments

RATE = 2e-3
SHIFT, SPREAD = 0.5, 1.2  # log(sigma / (1 - sigma)) is normal with this mean and deviation


def train(folder: Path, tokenizer: Path, pictures: int, minutes: float, batch: int, rate: float) -> None:
    """Train for so many minutes, all runs together; the state is FOLDER/flow.pt."""
    latents, captions = latents_of(folder, pictures)
    batches = FlowBatches.of_captions(latents, captions, CLIPTokenizer.from_pretrained(tokenizer), batch)
    torch.manual_seed(0)
    model = flow_transformer()
    placed(model)
    weights = list(model.parameters())
    broadcast(weights)
    if processes().is_main_process:
        print(f"{sum(p.numel() for p in weights) / 1e6:.2f}M weights, {len(latents)} latents", flush=True)
    ends = [model.pos_embed.proj, model.context_embedder, model.proj_out]
    learn(model, velocity, batches, optimizers_of(weights, ends, rate), folder / "flow.pt", minutes)


def velocity(model: SD3Transformer2DModel, batch: Batch) -> Tensor:
    return model(batch.z, batch.context, batch.pooled, batch.t, return_dict=False)[0]


class FlowBatches(Batches):
    """z = (1 - sigma) x0 + sigma noise, wanted is noise - x0; t is 1000 sigma."""

    def batch(self, x0: Tensor, noise: Tensor, tokens: Tensor, t: Tensor, random: torch.Generator) -> Batch:
        normal = torch.randn(len(x0), generator=random, device=DEVICE)
        sigma = (SHIFT + SPREAD * normal).sigmoid().view(-1, 1, 1, 1)
        z = (1 - sigma) * x0 + sigma * noise
        context = self.words[tokens[:, :PLACES]] + self.positions[:PLACES]
        end = pooled(tokens, self.words, self.positions)
        return Batch(z, MULTIPLIER * sigma.flatten(), context, end, noise - x0, torch.ones(len(x0), device=DEVICE))


if __name__ == "__main__":
    parser = arguments(__doc__, 40_000, 60, BATCH, RATE)
    parser.add_argument("--tokenizer", type=Path, required=True)
    train(**vars(parser.parse_args()))
    processes().destroy_process_group()
