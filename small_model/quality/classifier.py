"""A judge of drawn pictures: which word of each attribute a picture shows, and features to compare many pictures by.

A small convolutional network that looks at pictures at half their size. Its features are the last layer before the
heads; the Fréchet distance in them says how alike two sets of pictures of this domain are. It is not an FID, which is
the same formula in the features of Inception: the two numbers cannot be compared.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ..networks import storage
from ..scenes.words import ATTRIBUTES

FEATURES = 64
SEEN = 64  # pixels: the height and width that the network works on
WEIGHTS = storage.WEIGHTS / "classifier.safetensors"


def _layer(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


class Classifier(nn.Module):
    """Pictures [B, 3, S, S] in 0..1, S 64 or a multiple of it, to features [B, 64] and to words' logits."""

    def __init__(self) -> None:
        super().__init__()
        strides = ((3, 24, 2), (24, 32, 2), (32, 48, 1), (48, 64, 2), (64, 96, 1), (96, 96, 2))
        self.body = nn.Sequential(*(_layer(*layer) for layer in strides), nn.Flatten())
        self.last = nn.Linear(96 * (SEEN // 16) ** 2, FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(words)) for name, words in ATTRIBUTES.items()})

    def features(self, pictures: Tensor) -> Tensor:
        seen = functional.avg_pool2d(pictures, pictures.shape[-1] // SEEN)
        return self.last(self.body((2 * seen - 1).contiguous(memory_format=torch.channels_last)))

    def logits(self, features: Tensor) -> dict[str, Tensor]:
        """For each attribute [B, number of its words]."""
        return {name: head(functional.relu(features)) for name, head in self.heads.items()}

    def words(self, features: Tensor) -> dict[str, list[str]]:
        """The likeliest word of each attribute, for every picture."""
        likeliest = {name: logits.argmax(1).tolist() for name, logits in self.logits(features).items()}
        return {name: [ATTRIBUTES[name][i] for i in rows] for name, rows in likeliest.items()}


def classifier(weights: Path = WEIGHTS) -> Classifier:
    """The trained one. Raises FileNotFoundError that says how it is made."""
    if not weights.is_file():
        raise FileNotFoundError(
            f"There is no {weights}: make it with `python -m small_model.trainers.train_classifier FOLDER`."
        )
    found = Classifier()
    found.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()}, strict=False)
    return found.eval().requires_grad_(False)
