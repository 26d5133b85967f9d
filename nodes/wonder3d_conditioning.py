"""Wonder3D Conditioning: a picture of an object as what Wonder3D reads of it."""

import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..perflow_core.views.twelve_views import SIZE, each_twelve_times, on_white
from .comfyui.advice import with_advice

CONTEXT = 768  # the width of the image embedding that the UNet reads: CLIP ViT-L/14's
LATENT = (4, SIZE // 8, SIZE // 8)


class Wonder3DConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wonder3DConditioning",
            display_name="Wonder3D Conditioning",
            category="PeRFlow",
            description="Prepares a picture of one object for Wonder3D: the object is centred on white at 256 pixels, "
            "read by CLIP and by the VAE. The latent holds 12 pictures, 6 views as normals and 6 as colours.",
            search_aliases=["wonder3d", "multi-view", "multiview", "image to 3d", "novel view"],
            inputs=[
                io.ClipVision.Input(
                    "clip_vision", tooltip="CLIP ViT-L/14 from Load CLIP Vision: the image encoder of wonder3d-v1.0."
                ),
                io.Vae.Input("vae", tooltip="SD1.5's VAE."),
                io.Image.Input(
                    "image",
                    tooltip="One object, seen from the front. Several pictures give 12 views each. An alpha channel is "
                    "used as the mask.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the object is, as from Remove Background. The mask of Load Image is the other "
                    "way round: put Invert Mask between. Without a mask the whole picture is fitted in, so its "
                    "background should be white.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(
        cls, clip_vision: ClipVisionModel, vae: VAE, image: Tensor, mask: Tensor | None = None
    ) -> io.NodeOutput:
        with with_advice():
            picture = on_white(image, mask)
        context = image_embedding(clip_vision, picture)
        seen = each_twelve_times(vae.encode(picture))
        rows = each_twelve_times(context)
        positive = [[rows, {"concat_latent_image": seen}]]
        negative = [[torch.zeros_like(rows), {"concat_latent_image": torch.zeros_like(seen)}]]
        latent = torch.zeros(len(rows), *LATENT, device=comfy.model_management.intermediate_device())
        return io.NodeOutput(positive, negative, {"samples": latent})


def image_embedding(clip_vision: ClipVisionModel, picture: Tensor) -> Tensor:
    """CLIP's embedding of each picture as a context of one token, [n, 1, 768].

    Raises ValueError for an image encoder of another width.
    """
    embedding = clip_vision.encode_image(picture)["image_embeds"]
    width = embedding.shape[-1] if embedding is not None else 0
    if width != CONTEXT:
        raise ValueError(
            f"The image encoder gives {f'{width} numbers' if width else 'no embedding'} for a picture, expected CLIP "
            f"ViT-L/14's {CONTEXT}: load image_encoder of wonder3d-v1.0 with Load CLIP Vision."
        )
    return embedding[:, None]
