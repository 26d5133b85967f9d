"""Train the judge of drawn pictures and write its weights to small_model/weights/classifier.safetensors.

`python -m small_model.trainers.train_classifier FOLDER --pictures 12000 --seen 96000`, after train_autoencoder in the
same folder. Stopped at any moment it goes on from its last state. It sees drawings, drawings in other styles, and
drawings through the autoencoder, some blurred or grainy, so that it judges what a picture shows. The accuracy of each
attribute on held-out drawings is printed and stored in the file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ..quality.classifier import SEEN, WEIGHTS, Classifier
from ..quality.degradations import blurred, decoded, grainy
from ..scenes.picture import TRAINING, picture, scene
from ..scenes.styles import STYLES
from ..scenes.words import ATTRIBUTES
from .dataset import trained_autoencoder
from .devices import as_tensor
from .muon import optimizers_of
from .training_loop import Losses, Training, save

FIRST = TRAINING + 10_000_000  # its training pictures are its own
BATCH, RATE, DECAY = 64, 3e-3, 0.02
STYLED, DECODED, NOISE = 0.2, 0.25, 0.3  # shares of the training pictures, and noise on the latents of the latter
TESTED = 2000  # held-out pictures


def drawn(number: int, style: str | None = None) -> np.ndarray:
    """Picture `number` [64, 64, 3] uint8, in that style."""
    pixels = Image.fromarray(picture(number, style)[0])
    return np.asarray(pixels.reduce(pixels.width // SEEN))


def drawn_sometimes_styled(number: int) -> np.ndarray:
    random = np.random.default_rng([number, 1])
    style = str(random.choice(list(STYLES))) if random.random() < STYLED else None
    return drawn(number, style)


def labels(numbers: Sequence[int]) -> Tensor:
    """[count, attributes]: the place of each picture's word among the attribute's words."""
    scenes = [scene(number) for number in numbers]
    return torch.tensor([[words.index(getattr(s, name)) for name, words in ATTRIBUTES.items()] for s in scenes])


def tensors(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 pictures as [count, 3, H, W] uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def through_autoencoder(folder: Path, numbers: Sequence[int], noise: float) -> Tensor:
    """Those pictures as the autoencoder gives them back, [count, 3, 64, 64] uint8."""
    encoder, decoder = trained_autoencoder(folder)
    parts = []
    for i in range(0, len(numbers), 50):
        full = as_tensor(np.stack([picture(number)[0] for number in numbers[i : i + 50]]))
        small = functional.avg_pool2d(decoded(full, encoder, decoder, noise), full.shape[-1] // SEEN)
        parts.append((255 * small).round().to(torch.uint8).cpu())
    return torch.cat(parts)


def training_pictures(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Pictures [n, 3, 64, 64] uint8 and their labels, made unless the folder has them."""
    file = folder / f"classifier-{count}.pt"
    plain, again = range(FIRST, FIRST + count), range(FIRST + count, FIRST + count + round(DECODED * count))
    if not file.exists():
        with ProcessPoolExecutor(2) as pool:
            pixels = tensors(list(pool.map(drawn_sometimes_styled, plain, chunksize=64)))
        pixels = torch.cat([pixels, through_autoencoder(folder, again, NOISE)])
        save(pixels, file)
    pixels = torch.load(file, weights_only=True)
    return pixels, labels([*plain, *again])


def degraded(pictures: Tensor) -> Tensor:
    """A batch in 0..1 moved by up to two pixels, and half of the time blurred or grainy."""
    x = torch.roll(pictures, tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3))
    kind = torch.rand(()).item()
    if kind < 0.25:
        return blurred(x, 0.3 + 0.7 * torch.rand(()).item())
    return grainy(x, 0.06 * torch.rand(()).item()) if kind < 0.5 else x


def train(pixels: Tensor, wanted: Tensor, seen: int, file: Path) -> Classifier:
    """A classifier that has seen that many pictures, most of them several times. The state is in the file meanwhile."""
    torch.manual_seed(0)
    network = Classifier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = optimizers_of(list(network.parameters()), [network.body[0][0], *network.heads.values()], RATE, DECAY)
    training = Training({"network": network}, optimizers, file, longest_average=0.0, largest_gradient=math.inf)

    def losses(step: int, done: float) -> Losses:
        torch.manual_seed(step + 1)  # a run that was stopped goes on with the pictures that it would have seen
        rows = torch.randint(len(pixels), (BATCH,))
        logits = network.logits(network.features(degraded(pixels[rows].float() / 255)))
        found = [functional.cross_entropy(words, wanted[rows, i]) for i, words in enumerate(logits.values())]
        loss = torch.stack(found).mean()
        return loss, {"loss": loss}

    training.run(math.inf, losses, lambda done: 1 - done, warm_up=50, samples=BATCH, steps=seen // BATCH)
    return network.eval()


@torch.no_grad()
def accuracy(network: Classifier, pixels: Tensor, wanted: Tensor) -> dict[str, float]:
    """The share of pictures whose word is found, for each attribute."""
    logits = network.logits(torch.cat([network.features(part.float() / 255) for part in torch.split(pixels, 250)]))
    return {
        name: round((found.argmax(1) == wanted[:, i]).double().mean().item(), 4)
        for i, (name, found) in enumerate(logits.items())
    }


def tested(network: Classifier, folder: Path) -> dict[str, dict[str, float]]:
    """Accuracy on held-out drawings as they are, through the autoencoder, blurred and grainy, and in other styles."""
    plain = tensors([drawn(number) for number in range(TESTED)])
    sets = {"drawings": plain}
    sets["through the autoencoder"] = through_autoencoder(folder, range(TESTED // 2), 0.0)
    sets["blurred and grainy"] = (255 * grainy(blurred(plain.float() / 255, 0.8), 0.04)).to(torch.uint8)
    sets |= {style: tensors([drawn(number, style) for number in range(TESTED // 2)]) for style in STYLES}
    wanted = labels(range(TESTED))
    return {name: accuracy(network, pixels, wanted[: len(pixels)]) for name, pixels in sets.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=12_000, help="drawn for it")
    parser.add_argument("--seen", type=int, default=96_000, help="pictures, each again when all were seen")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    pixels, wanted = training_pictures(options.folder, options.pictures)
    print(f"{len(pixels)} training pictures", flush=True)
    network = train(pixels, wanted, options.seen, options.folder / f"classifier-{options.seen}-seen.pt")
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    found = tested(network, options.folder)
    for name, shares in found.items():
        print(f"{name}: " + ", ".join(f"{attribute} {100 * share:.1f} %" for attribute, share in shares.items()))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        weights, options.out, {"accuracy": json.dumps(found), "pictures": str(len(pixels)), "seen": str(options.seen)}
    )
    print(f"{options.out} ({options.out.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
