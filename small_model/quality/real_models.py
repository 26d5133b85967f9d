"""The same table for a real model: torchmetrics' FID and CLIP score against a folder of pictures with captions."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import UserError
from PIL import Image, ImageOps
from torch import Tensor

from . import sampling
from .cells import BASE, DELTA, SD15, Cell, Guidance, Model
from .frechet import Gaussian, frechet, gaussian, jackknife
from .rows import Row, with_errors
from .store import Store

BATCH = 4
STEPS = (4, 8, 25)
KINDS = (".png", ".jpg", ".jpeg", ".webp")
CLIP = "openai/clip-vit-base-patch16"
DOWNLOADS = (
    "FID's Inception network (from GitHub) and CLIP (from Hugging Face) are downloaded at run time, and that failed"
)


def real_table(comfyui: Any, options: argparse.Namespace) -> list[Row]:
    """One row a cell: fid and clip with their errors, the base first, then PeRFlow where a delta is given."""
    captioned = captioned_pictures(options.reference)
    if len(captioned) < 2:
        raise UserError(f"{options.reference} has {len(captioned)} pictures with a caption, expected 2 or more.")
    judge = RealJudge()
    real = RealTable(comfyui, options, captioned, judge)
    cells = [Cell(Model(BASE), sampler, steps) for steps in STEPS for sampler in SD15.samplers]
    if options.delta:
        cells[:0] = [Cell(Model(BASE, DELTA), "euler", steps) for steps in STEPS[:2]]
    if options.quick:
        cells = cells[:2]
    left = sum(cell.calls * sum(map(len, real.missing(cell))) for cell in cells)
    print(f"{len(cells)} cells, {left} model calls to do, {real.count} pictures a cell", flush=True)
    for cell in cells:
        real.fill(cell)
        print(f"{cell.model.name}, {cell.sampler}, {cell.steps} steps", flush=True)
    return [real.row(cell) for cell in cells]


def captioned_pictures(folder: Path) -> list[tuple[Path, str]]:
    """The folder's pictures that have a caption in a .txt file of the same name, in the order of their names."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    texts = ((path, path.with_suffix(".txt")) for path in pictures)
    return [(path, text.read_text(encoding="utf-8").strip()) for path, text in texts if text.is_file()]


class RealJudge:
    """Inception features and CLIP scores. Raises UserError where the networks cannot be had."""

    def __init__(self) -> None:
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
            from torchmetrics.multimodal.clip_score import CLIPScore

            self._inception = FrechetInceptionDistance(2048).inception
            self._clip = CLIPScore(CLIP)
        except ModuleNotFoundError as error:
            raise UserError(
                f"FID and CLIP score need torchmetrics, and {error.name or 'torch-fidelity'} is not installed: run "
                f'`{sys.executable} -m pip install "torchmetrics[image,multimodal]"` and start this again.'
            ) from error
        except Exception as error:  # urllib's, requests' and huggingface_hub's, which have no common class
            reason = str(error).strip().splitlines()
            raise UserError(
                f"{DOWNLOADS} ({type(error).__name__}: {reason[0] if reason else 'no reason given'}): connect to the "
                "network once, or put the files into the caches of torch.hub and huggingface_hub."
            ) from error

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """[n, 2048] of pictures [n, 3, H, W] uint8."""
        return self._inception(pictures)

    def scores(self, pictures: Tensor, captions: Sequence[str]) -> Tensor:
        """CLIP score of each, [n]: 100 times the cosine of picture and caption, at least 0."""
        pairs = zip(pictures, captions, strict=True)
        return torch.stack([self._clip(picture, caption).detach() for picture, caption in pairs])


class RealTable:
    def __init__(
        self, comfyui: Any, options: argparse.Namespace, captioned: list[tuple[Path, str]], judge: RealJudge
    ) -> None:
        self._nodes, self._options, self._judge = comfyui.nodes, options, judge
        self._captioned, self._guidance = captioned, Guidance(options.cfg, options.perflow_cfg)
        self.count = min(options.pictures, len(captioned))

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        """MODEL, CLIP and VAE by Load Checkpoint."""
        import folder_paths

        for kind, file in (("checkpoints", self._options.checkpoint), ("perflow", self._options.delta)):
            if file:
                folder_paths.add_model_folder_path(kind, str(file.absolute().parent))
        return self._nodes["CheckpointLoaderSimple"]().load_checkpoint(self._options.checkpoint.name)

    @cached_property
    def _accelerated(self) -> Any:
        return sampling.with_delta(self._nodes, self._loaded[0], self._options.delta.name)

    def missing(self, cell: Cell) -> list[range]:
        return list(self._store(cell).missing(self.count))

    def fill(self, cell: Cell) -> None:
        for numbers in self.missing(cell):
            captions = [self._captioned[n][1] for n in numbers]
            pictures = self._sample(cell, numbers, captions)
            found = {"features": self._judge.features(pictures), "scores": self._judge.scores(pictures, captions)}
            self._store(cell).keep(numbers, found)

    def row(self, cell: Cell) -> Row:
        judged = self._store(cell).read(self.count)
        found: Row = dict(model=cell.model.name, sampler=cell.sampler, steps=cell.steps, calls=cell.calls)
        features, scores, reference = judged["features"], judged["scores"].double(), self._reference
        estimates = {
            "fid": jackknife(lambda rows: frechet(gaussian(features[rows]), reference), self.count),
            "clip": jackknife(lambda rows: float(scores[rows].mean()), self.count),
        }
        return found | with_errors(estimates) | {"pictures": self.count}

    def _sample(self, cell: Cell, numbers: range, captions: Sequence[str]) -> Tensor:
        """[n, 3, H, W] uint8, by CLIP Text Encode, the samplers and VAE Decode."""
        model, clip, vae = self._loaded
        encode = self._nodes["CLIPTextEncode"]()
        texts = [encode.encode(clip, caption)[0][0] for caption in captions]
        side = self._options.size // 8
        samples = sampling.sample(
            self._nodes,
            self._accelerated if cell.model.delta else model,
            cell,
            sampling.noise_of(numbers, (4, side, side)),
            [sampling.together(texts)],
            encode.encode(clip, "")[0],
            self._guidance.of(cell.model),
        )
        (pictures,) = self._nodes["VAEDecode"]().decode(vae, {"samples": samples})
        return (255 * pictures.permute(0, 3, 1, 2).clamp(0, 1)).round().to(torch.uint8).cpu()

    @cached_property
    def _reference(self) -> Gaussian:
        size = self._options.size
        parts = []
        for path, _ in self._captioned:
            cut = ImageOps.fit(Image.open(path).convert("RGB"), (size, size), Image.Resampling.LANCZOS)
            parts.append(self._judge.features(torch.from_numpy(np.array(cut)).permute(2, 0, 1)[None]))
        return gaussian(torch.cat(parts))

    def _store(self, cell: Cell) -> Store:
        """By the files' names, sizes and times: to read gigabytes for a name would take long."""
        files = [self._options.checkpoint, *([self._options.delta] if cell.model.delta else [])]
        stats = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        captions = [caption for _, caption in self._captioned]
        digest = hashlib.sha256(repr((stats, captions, self._options.size)).encode()).hexdigest()[:10]
        return Store(self._options.results / "real" / cell.folder(self._guidance.of(cell.model), digest), BATCH)
