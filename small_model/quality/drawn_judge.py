"""The judge of drawn pictures: latents decoded, features and attributes by the domain's classifier.

Pictures are decoded by the narrow decoder: ComfyUI's TAESD class is 64 channels wide and computes the same, slower.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..networks.autoencoder import pair_of
from ..scenes.picture import caption, picture
from ..scenes.words import ATTRIBUTES, named_attributes
from . import classifier, degradations
from .cells import BASE, LORA, TUNED
from .frechet import Gaussian, gaussian
from .store import Judged, Store
from .stored_models import StoredModels, sha256

STYLE_OF = {BASE: None, TUNED: "woodcut", LORA: "neon"}
REFERENCE = 10_000_000  # the first of the drawings that others are compared with; prompts are those from 0 on
REFERENCE_COUNT = 10_000
BATCH = 100
CPU = torch.device("cpu")


class DrawnJudge:
    """Everything is by picture number; number n's prompt is the caption of held-out drawing n."""

    def __init__(
        self, models: StoredModels, results: Path, reference_count: int = REFERENCE_COUNT, device: torch.device = CPU
    ) -> None:
        self._device = device
        self._network = classifier.classifier().to(device)
        self._encoder, self._decoder = pair_of(*models.weights("autoencoder", "encoder", "decoder"))
        for module in (self._encoder, self._decoder):
            module.eval().requires_grad_(False)
            module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._as_trained = models.latent_format.process_in
        self._sampled = models.precision  # samples are decoded in the network's precision, drawings in float32
        self._decoder_of_samples = copy.deepcopy(self._decoder).to(self._sampled)
        self._digest_of_network = short(sha256(classifier.WEIGHTS))
        networks = sha256(classifier.WEIGHTS) + sha256(models.file("autoencoder"))
        self._digest_of_decoded = short(networks)
        self.digest = short(networks + str(self._sampled).encode())
        self._results, self._reference_count = results, reference_count
        self._references: dict[str, Gaussian] = {}

    def prompts(self, numbers: Sequence[int]) -> list[str]:
        return [caption(number) for number in numbers]

    @torch.no_grad()
    def decode(self, samples: Tensor) -> Tensor:
        """ComfyUI's LATENT samples as pictures [n, 3, 128, 128] in 0..1, on the judge's device."""
        latents = (
            self._as_trained(samples).to(self._device, self._sampled).contiguous(memory_format=torch.channels_last)
        )
        return torch.cat([self._decoder_of_samples(part).float().clamp(0, 1) for part in torch.split(latents, BATCH)])

    def of_samples(self, numbers: Sequence[int], samples: Tensor) -> Judged:
        found = self.of_pictures(numbers, self.decode(samples))
        return found | {"latents": self._as_trained(samples).half()}

    @torch.no_grad()
    def of_pictures(self, numbers: Sequence[int], pictures: Tensor) -> Judged:
        """features [n, 64]; named, found [n, attributes]: does the caption name it, and does the picture show that."""
        features = self._network.features(pictures.to(self._device))
        shown = self._network.words(features)
        wanted = [named_attributes(caption) for caption in self.prompts(numbers)]
        named = torch.tensor([[name in words for name in ATTRIBUTES] for words in wanted])
        right = [[words.get(name) == shown[name][i] for name in ATTRIBUTES] for i, words in enumerate(wanted)]
        return {"features": features.cpu(), "named": named, "found": torch.tensor(right)}

    def drawings(self, count: int, style: str | None, decoded: bool, first: int = 0) -> Judged:
        """The same of held-out drawings `first`, `first` + 1, ..., in that style, as they are or decoded."""
        digest = self._digest_of_decoded if decoded else self._digest_of_network
        kind = f"{first}-{style or 'plain'}{'-decoded' if decoded else ''}-{digest}"
        store = Store(self._results / "held-out drawings" / kind, BATCH)
        missing = list(store.missing(count))
        if missing:
            with ProcessPoolExecutor() as pool:
                for part in missing:
                    numbers = range(first + part.start, first + part.stop)
                    drawn = [pixels for pixels, _ in pool.map(picture, numbers, repeat(style), chunksize=25)]
                    store.keep(part, self._of_drawings(numbers, drawn, decoded))
        return store.read(count)

    def _of_drawings(self, numbers: range, drawn: list[np.ndarray[Any, Any]], decoded: bool) -> Judged:
        pictures = torch.from_numpy(np.stack(drawn)).to(self._device).permute(0, 3, 1, 2).float() / 255
        if decoded:
            pictures = degradations.decoded(pictures, self._encoder, self._decoder)
        return self.of_pictures(numbers, pictures)

    def reference(self, root: str) -> Gaussian:
        """What pictures of that model are compared with: drawings in its style that no prompt is taken from."""
        if root not in self._references:
            judged = self.drawings(self._reference_count, STYLE_OF[root], decoded=False, first=REFERENCE)
            self._references[root] = gaussian(judged["features"])
        return self._references[root]


def short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]
