"""Small random models with the real layouts, for demonstrations and tests without a download.

The keys come from ComfyUI's own modules, so the stock loaders recognise the files. Random weights know no
pictures, but these are arranged so that sampling behaves: it removes noise and ends in smooth fields of colour.
UNets and transformers are small; text models, VAEs and image encoders have their real sizes, and are for the most
part zeros that take no place on the disk. Needs torch, safetensors and ComfyUI (on sys.path, or in the folder that
PERFLOW_COMFYUI names).
"""

from .checkpoints import make_checkpoint, make_refiner_checkpoint, make_sd3_checkpoint, make_sdxl_checkpoint
from .deltas import make_delta
from .image_prompts import make_clip_vision, make_ip_adapter
from .loras import make_lora, make_pcm_lora, make_sd3_lora
from .text_models import make_text_encoder
from .unets import (
    REFINER_SMALL,
    SD15_SMALL,
    SD15_TINY,
    SD21_SMALL,
    SDXL_SMALL,
    UNET,
    make_controlnet,
    make_unet,
)
from .vaes import make_vae
from .wonder3d import make_wonder3d
