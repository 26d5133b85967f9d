"""Train the narrow autoencoder on drawn pictures. Stopped at any moment it goes on from its last state.

`python -m small_model.trainers.train_autoencoder FOLDER --pictures 48000 --minutes 40`, on two cores
`torchrun --nproc_per_node 2 -m small_model.trainers.train_autoencoder ...`. With --from-stored it begins with the
weights in this repository; with --channels 16 it is the SD3-like model's, which begins with the other's inner layers.
With --decoder-alone the trained encoder stays as it is, and so do latents; the state is FOLDER/decoder.pt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ..networks import storage
from ..networks.autoencoder import LATENT_CHANNELS, Decoder, Encoder
from .dataset import AUTOENCODER, DECODER, pictures_of, trained_autoencoder
from .devices import DEVICE, arithmetic, broadcast, placed, processes
from .muon import optimizers_of
from .training_loop import Losses, Training, arguments

CROP, BATCH, RATE = 64, 8, 4e-3
NOISE = 0.08  # added to latents, so that the decoder tolerates the errors of a diffusion model
SQUARES = 10.0  # so that they are about a third of the loss
STANDARDISED_AT = 0.6  # of the time


def crops(pictures: Tensor, batch: int, random: np.random.Generator) -> Tensor:
    """Random squares of random pictures [N, H, W, 3] uint8: [batch, 3, CROP, CROP] in 0..1."""
    squares = pictures.unfold(1, CROP, 8).unfold(2, CROP, 8)  # [N, rows, columns, 3, CROP, CROP], nothing copied
    chosen = torch.from_numpy(random.integers(0, len(pictures), batch)).to(pictures.device)
    y, x = torch.from_numpy(random.integers(0, squares.shape[1], (batch, 2))).to(pictures.device).T
    return squares[chosen, y, x].float() / 255


def loss_of(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute error of the picture, and at three sizes that of its differences between neighbours and its square.

    The differences make edges sharp; the squares count most where a whole part has the wrong colour.
    """
    total = (found - wanted).abs().mean()
    for _ in range(3):
        for dim in (2, 3):
            total = total + (found.diff(dim=dim) - wanted.diff(dim=dim)).abs().mean()
        total = total + SQUARES * (found - wanted).square().mean()
        found, wanted = avg_pool2d(found, 2), avg_pool2d(wanted, 2)
    return total


def spread(z: Tensor) -> Tensor:
    """How far the channels of latents [B, 4, h, w] are from mean 0 and deviation 1."""
    return z.mean((0, 2, 3)).square().mean() + (z.std((0, 2, 3)) - 1).square().mean()


def train(
    folder: Path,
    pictures: int,
    minutes: float,
    batch: int,
    rate: float,
    from_stored: bool,
    channels: int = LATENT_CHANNELS,
    decoder_alone: bool = False,
) -> None:
    """Train for so many minutes, all runs together, at a rate that falls to zero; the state is in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = torch.from_numpy(pictures_of(folder, pictures)[0]).to(DEVICE)
    torch.manual_seed(processes().process_index)  # no two processes have the same noise
    encoder, decoder = trained_autoencoder(folder) if decoder_alone else first_weights(from_stored, channels)
    both = placed(nn.ModuleList([encoder, decoder.requires_grad_(True)])).train()
    weights = [weight for weight in both.parameters() if weight.requires_grad]
    broadcast(weights)
    optimizers = optimizers_of(weights, [encoder[0], encoder[-1], decoder[1], decoder[-1]], rate)
    networks, file = {"encoder": encoder, "decoder": decoder}, folder / (DECODER if decoder_alone else AUTOENCODER)
    training = Training(networks, optimizers, file, longest_average=0.999)
    training.state.setdefault("standardised", decoder_alone or (from_stored and channels == LATENT_CHANNELS))

    def losses(step: int, done: float) -> Losses:
        if done >= STANDARDISED_AT and not training.state["standardised"]:
            standardise(encoder, decoder, pixels, training.state["ema"])
            training.state["standardised"] = True
        x = crops(pixels, batch, np.random.default_rng([1, processes().process_index, step]))
        loss, spreading = losses_of(encoder, decoder, x.contiguous(memory_format=torch.channels_last))
        return loss + 0.01 * spreading, {"loss": loss, "spread": spreading}

    training.run(minutes, losses, lambda done: 1 - done, warm_up=50, samples=batch * processes().num_processes)


def first_weights(from_stored: bool, channels: int) -> tuple[Encoder, Decoder]:
    """Made-up ones (by torch's seed), or those in this repository where they fit."""
    pair = Encoder(channels), Decoder(channels)
    if from_stored:
        stored, _ = storage.read(storage.WEIGHTS / "autoencoder.safetensors")
        for network, weights in zip(pair, storage.networks(stored, "encoder", "decoder"), strict=True):
            own = network.state_dict()
            network.load_state_dict({n: w if w.shape == own[n].shape else own[n] for n, w in weights.items()})
    return pair


@torch.no_grad()
def standardise(encoder: Encoder, decoder: Decoder, pictures: Tensor, ema: list[Tensor]) -> None:
    """Give every latent channel mean 0 and deviation 1 over the pictures, as a diffusion model likes it.

    The decoder's first layer takes it back; that is exact but for its clamp and the border, which training heals.
    """
    z = encoder(pictures[:400].permute(0, 3, 1, 2).float() / 255)
    mean, deviation = z.mean((0, 2, 3)), z.std((0, 2, 3))
    names = [*encoder.state_dict(), *decoder.state_dict()]  # the moving averages come in this order
    first = len(encoder.state_dict())
    averages = dict(zip(names[:first], ema[:first], strict=True)), dict(zip(names[first:], ema[first:], strict=True))
    for leave, enter in ((encoder.state_dict(), decoder.state_dict()), averages):
        weight, bias = leave[f"{len(encoder) - 1}.weight"], leave[f"{len(encoder) - 1}.bias"]
        weight.div_(deviation.view(-1, 1, 1, 1))
        bias.sub_(mean).div_(deviation)
        enter["1.bias"].add_((enter["1.weight"].sum((2, 3)) * mean).sum(1))
        enter["1.weight"].mul_(deviation.view(1, -1, 1, 1))


def losses_of(encoder: Encoder, decoder: Decoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the pictures decoded from noisy latents, and of how the latents are spread."""
    with arithmetic():
        z = encoder(x).float()
        noisy = z + NOISE * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z)
        found = decoder(noisy).float()
    return loss_of(found, x), spread(z)


if __name__ == "__main__":
    parser = arguments(__doc__, 8000, 60, BATCH, RATE)
    parser.add_argument("--from-stored", action="store_true", help="begin with the weights in this repository")
    parser.add_argument("--channels", type=int, default=LATENT_CHANNELS, help="of the latents")
    parser.add_argument("--decoder-alone", action="store_true", help="train its decoder on")
    train(**vars(parser.parse_args()))
    processes().destroy_process_group()
