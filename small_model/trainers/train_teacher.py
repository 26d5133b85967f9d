"""Train the narrow teacher: noise prediction on the latents of drawn pictures. It goes on from its last state.

`python -m small_model.trainers.train_teacher FOLDER --tokenizer FOLDER --pictures 48000 --minutes 60`, after
train_autoencoder in the same folder, with the same torchrun on two cores. The tokenizer is CLIP-L's, as ComfyUI has it
in comfy/sd1_tokenizer. With --from-stored it begins with the weights in this repository.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from perflow_core.sampling.noise_tables import stable_diffusion_sigmas

from ..networks import storage
from ..networks.text_model import PLACES, POSITIONS, embeddings, features
from ..networks.unet import narrow_unet
from .dataset import latents_of
from .devices import DEVICE, arithmetic, broadcast, placed, processes
from .muon import optimizers_of
from .training_loop import Losses, Training, arguments

Network = TypeVar("Network", bound=nn.Module)
BATCH, RATE, EMPTY = 32, 2e-3, 0.1  # EMPTY: how often the caption is left out, so that CFG works


def train(
    folder: Path, tokenizer: Path, pictures: int, minutes: float, batch: int, rate: float, from_stored: bool
) -> None:
    """Train for so many minutes, all runs together; the state is in the folder."""
    latents, captions = latents_of(folder, pictures)
    batches = Batches.of_captions(latents, captions, CLIPTokenizer.from_pretrained(tokenizer), batch)
    torch.manual_seed(0)
    unet = narrow_unet()
    if from_stored:
        unet.load_state_dict(storage.read(storage.WEIGHTS / "teacher.safetensors")[0])
    placed(unet)
    weights = list(unet.parameters())
    broadcast(weights)
    if processes().is_main_process:
        print(f"{sum(p.numel() for p in weights) / 1e6:.2f}M weights, {len(latents)} latents", flush=True)
    optimizers = optimizers_of(weights, [unet.conv_in, unet.conv_out], rate)
    learn(unet, predicted, batches, optimizers, folder / "teacher.pt", minutes)


def learn(
    network: Network,
    predicted: Callable[[Network, Batch], Tensor],
    batches: Batches,
    optimizers: Sequence[torch.optim.Optimizer],
    file: Path,
    minutes: float,
) -> list[Tensor]:
    """Train what the optimizers hold, the state in the file; returns the running averages of the trained weights."""
    training = Training({"unet": network}, optimizers, file, longest_average=0.9995)

    def losses(step: int, done: float) -> Losses:
        batch = batches[step * processes().num_processes + processes().process_index]
        with arithmetic():
            found = predicted(network, batch)
        loss = ((found.float() - batch.wanted).square().mean((1, 2, 3)) * batch.weight).mean()
        return loss, {"loss": loss}

    def decay(done: float) -> float:
        return 0.02 + 0.98 * math.cos(0.5 * math.pi * done)

    training.run(minutes, losses, decay, warm_up=100, samples=batches.size * processes().num_processes)
    return training.state["ema"]


def predicted(unet: UNet2DConditionModel, batch: Batch) -> Tensor:
    """The UNet's noise, where attention counts the context's last place as often as a caption has it.

    The last places of a caption are all alike. diffusers adds -10000 (1 - mask) to the logits, here log(how many).
    """
    share = torch.ones(batch.context.shape[:2], device=batch.context.device)
    share[:, -1] = 1 + math.log(POSITIONS - PLACES + 1) / 10000
    return unet(batch.z, batch.t, batch.context, encoder_attention_mask=share, return_dict=False)[0]


class Batch(NamedTuple):
    z: Tensor  # the noisy latents, [B, C, 16, 16]
    t: Tensor  # 0..999, [B]
    context: Tensor  # [B, PLACES, 768], the last of which stands for all that follow
    pooled: Tensor  # of whole captions, [B, 768], where the network takes it
    wanted: Tensor  # of the network, as large as z
    weight: Tensor  # of each row's loss, [B]


class Batches:
    """Step i's batch, the same whenever it is made. latents [n, C, 16, 16]; tokens [n, 77]; empty [77].

    z = sqrt(ab) x0 + sqrt(1 - ab) noise, and the noise is wanted.
    """

    def __init__(self, latents: Tensor, tokens: Tensor, empty: Tensor, size: int = BATCH) -> None:
        self.size = size
        self.latents, self.tokens, self.empty = latents.to(DEVICE), tokens.to(DEVICE), empty.to(DEVICE)
        self.words, self.positions = (vectors.to(DEVICE) for vectors in embeddings())
        ratio = stable_diffusion_sigmas().to(DEVICE) ** -2  # c^2 / s^2, with c^2 + s^2 = 1
        self.c, self.s = (ratio / (1 + ratio)).sqrt().float(), (1 + ratio).rsqrt().float()
        self.weight = (ratio.clamp(max=5) / ratio).float()  # min-SNR, https://arxiv.org/abs/2303.09556

    @classmethod
    def of_captions(cls, latents: Tensor, captions: list[str], tokenizer: CLIPTokenizer, size: int = BATCH) -> Batches:
        ids = tokenizer([*captions, ""], padding="max_length", max_length=77, truncation=True).input_ids
        *tokens, empty = torch.tensor(ids, dtype=torch.int32)
        return cls(latents, torch.stack(tokens), empty, size)

    def __getitem__(self, i: int) -> Batch:
        random, count = torch.Generator(DEVICE).manual_seed(i), (self.size,)
        rows = torch.randint(len(self.latents), count, generator=random, device=DEVICE)
        t = torch.randint(1000, count, generator=random, device=DEVICE)
        x0 = self.latents[rows].float()
        noise = torch.randn(x0.shape, generator=random, device=DEVICE)
        left_out = torch.rand(count, generator=random, device=DEVICE) < EMPTY
        tokens = torch.where(left_out[:, None], self.empty, self.tokens[rows])
        return self.batch(x0, noise, tokens, t, random)

    def batch(self, x0: Tensor, noise: Tensor, tokens: Tensor, t: Tensor, random: torch.Generator) -> Batch:
        """The rows with this noise and these captions; t is uniform."""
        z = self.c[t].view(-1, 1, 1, 1) * x0 + self.s[t].view(-1, 1, 1, 1) * noise
        context = features(tokens[:, :PLACES], self.words, self.positions[:PLACES])
        return Batch(z, t, context, context[:, -1], noise, self.weight[t])


if __name__ == "__main__":
    parser = arguments(__doc__, 40_000, 60, BATCH, RATE)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--from-stored", action="store_true", help="begin with the weights in this repository")
    train(**vars(parser.parse_args()))
    processes().destroy_process_group()
