"""Interpolated Noise: from one seed's noise to another's, frame by frame."""

from typing import Any

import comfy.sample
from comfy_api.latest import io
from torch import Tensor

from ..perflow_core.sampling.slerp import slerp
from .comfyui import shared_inputs

LARGEST_SEED = 0xFFFFFFFFFFFFFFFF


class InstaFlowNoise(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InstaFlowNoise",
            display_name="Interpolated Noise",
            category="PeRFlow",
            description="Makes the start noise for a batch of pictures that change from one seed's picture to "
            "another's, along the great circle between the two noises. It is made for one-step models and works with "
            "any image model.",
            search_aliases=["instaflow", "latent interpolation", "slerp", "seed travel", "morph", "random noise"],
            inputs=[
                io.Int.Input(
                    "seed_from",
                    default=0,
                    min=0,
                    max=LARGEST_SEED,
                    tooltip="Seed of the first frame: its noise is what RandomNoise gives for this seed and one "
                    "picture.",
                ),
                io.Int.Input(
                    "seed_to",
                    default=1,
                    min=0,
                    max=LARGEST_SEED,
                    tooltip="Seed of the last frame, used in the same way.",
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="Number of pictures from the first seed to the last, both included. The latent must have "
                    "this batch_size, or be a part of such a batch (Latent From Batch).",
                ),
            ],
            outputs=[io.Noise.Output()],
        )

    @classmethod
    def execute(cls, seed_from: int, seed_to: int, frames: int) -> io.NodeOutput:
        shared_inputs.check_ranges(cls, seed_from=seed_from, seed_to=seed_to, frames=frames)
        return io.NodeOutput(InterpolatedNoise(seed_from, seed_to, frames))


class InterpolatedNoise:
    """A NOISE object, as RandomNoise's. `seed` is for samplers that add noise of their own."""

    def __init__(self, seed_from: int, seed_to: int, frames: int):
        self.seed = seed_from
        self.seed_to = seed_to
        self.frames = frames

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """Noise of the latent's shape, one frame an image. Raises ValueError where frames and images do not match."""
        image = input_latent["samples"]
        if image.is_nested:
            raise ValueError(
                f"Interpolated Noise got a latent of {len(image.unbind())} parts (video with sound), expected a batch "
                "of images: use RandomNoise for this model."
            )
        which = input_latent.get("batch_index") or range(len(image))
        if "batch_index" not in input_latent and len(which) != self.frames:
            raise ValueError(
                f"Interpolated Noise has {self.frames} frames and the latent has {len(which)} images, expected the "
                "same number of both: change frames or the latent's batch_size."
            )
        if max(which) >= self.frames:
            raise ValueError(
                f"Interpolated Noise has {self.frames} frames and the latent holds image {max(which) + 1} of its "
                "batch, expected at most one image for each frame: set frames to the size of the whole batch."
            )
        first, last = (comfy.sample.prepare_noise(image[:1], seed) for seed in (self.seed, self.seed_to))
        return slerp(first, last, self.frames)[list(which)]
