"""What to do where the core finds something that it cannot work with, in the words of the nodes."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...perflow_core.errors import Problem, UnusableError

ADVICE = {
    Problem.FULL_MODEL: "load it with Load Diffusion Model and use Model Sampling PeRFlow",
    Problem.OTHER_LORA: "use Load LoRA for it, with Phase Schedule (PCM) for a PCM LoRA or Model Sampling PeRFlow for "
    "PeRFlow's weights",
    Problem.OTHER_ADAPTER: "use Load LoRA for it, and Model Sampling PeRFlow if it holds PeRFlow's weights",
    Problem.INCOMPLETE: "download or make it again, or turn on partial to apply what there is",
    Problem.OTHER_SHAPE: "choose a delta made for this kind of model, or turn on partial to leave it out",
    Problem.INPAINTING_MODEL: "this is an inpainting model, so turn on partial to leave that tensor out and apply the "
    "others",
    Problem.EXTRA_CHANNELS: "this is a model with extra input channels, so turn on partial to leave that tensor out "
    "and apply the others",
    Problem.UNKNOWN_PREDICTION_TYPE: "ask whoever made the file, and choose it on the node instead of auto",
    Problem.UNKNOWN_WINDOWS: "choose it on the node",
    Problem.OTHER_UNET: "choose another file, or load this one with Load Diffusion Model",
    Problem.MASKS_DO_NOT_FIT: "connect the mask that was made from these pictures",
    Problem.EMPTY_MASK: "connect the mask of Remove Background, or none; the mask of Load Image is the other way round "
    "and goes through Invert Mask first",
    Problem.NOT_TWELVE_VIEWS: "connect what VAE Decode makes of the whole latent of Wonder3D Conditioning",
}


@contextmanager
def with_advice() -> Iterator[None]:
    """Errors of the core leave with what to do on the node."""
    try:
        yield
    except UnusableError as error:
        if error.problem is None:
            raise
        raise error.advised(ADVICE[error.problem]) from error
