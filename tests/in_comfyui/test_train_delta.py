"""Train PeRFlow Delta on real UNets of small size."""

from pathlib import Path

import pytest
import torch

SETTINGS = {
    "steps": 3,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "rank": 4,
    "windows": 4,
    "prediction_type": "auto",
    "solving_steps": 1,
    "guidance": 0.0,
    "points_per_window": 4,
    "gradient_checkpointing": True,
    "seed": 1,
    "filename_prefix": "trained",
}


def pictures(count=2, channels=4, size=8):
    return {"samples": torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(5))}


def prompts(*values, width=768):
    return [[torch.full((1, 77, width), value), {}] for value in values]


@pytest.fixture
def train(run):
    """The node as the executor calls it: every input a list."""

    def call(model, latents=None, positive=None, **inputs):
        inputs = {key: [value] for key, value in (SETTINGS | inputs).items()}
        path, loss_map, image = run(
            "PeRFlowTrainDelta",
            model=[model],
            latents=latents or [pictures()],
            positive=positive or [prompts(0.1)],
            **inputs,
        )
        return Path(path), loss_map["loss"], image

    return call


def test_first(train, small_unet):
    path, loss, image = train(small_unet)
    print(path, loss, image.shape)
