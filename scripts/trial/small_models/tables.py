"""The small models and their file names: the trained one, and a random one for every file that the graphs ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .checkpoints import make_checkpoint, make_refiner_checkpoint, make_sd3_checkpoint, make_sdxl_checkpoint
from .deltas import make_delta
from .hunyuan3d import make_hunyuan3d
from .image_prompts import make_clip_vision, make_ip_adapter
from .loras import make_lora, make_pcm_lora, make_sd3_lora
from .sparse_files import save_name
from .text_models import make_text_encoder
from .trained import make_trained_checkpoint, make_trained_delta
from .triposplat import make_triposplat_decoder
from .unets import SD15_TINY, SD21_SMALL, SDXL_SMALL, Config, make_controlnet, make_unet
from .vaes import make_vae
from .wonder3d import make_wonder3d

Maker = Callable[[Path, Path], object]  # (the file to write, the folder that holds them all)

TRAINED_CHECKPOINT = "checkpoints/drawn-scenes.safetensors"
TRAINED_DELTA = "perflow/drawn-scenes-perflow.safetensors"
SD15 = "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
SDXL = "checkpoints/sd_xl_base_1.0.safetensors"


def unet(preset: Config, seed: int, sign: int = 1) -> Maker:
    return lambda path, models: make_unet(path, preset, seed, sign)


def lora(base: str, seed: int) -> Maker:
    return lambda path, models: make_lora(path, models / base, seed=seed, text=True)


def pcm_lora(base: str) -> Maker:
    return lambda path, models: make_pcm_lora(path, models / base)


def sd3_lora(seed: int) -> Maker:
    return lambda path, models: make_sd3_lora(path, seed=seed)


def controlnet(seed: int) -> Maker:
    return lambda path, models: make_controlnet(path, SD15_TINY, seed)


def ip_adapter(preset: Config) -> Maker:
    return lambda path, models: make_ip_adapter(path, preset)


# In these orders: some are made from others.
GRAPHS: dict[str, Maker] = {
    SD15: lambda path, models: make_checkpoint(path, unet_config=SD15_TINY),
    SDXL: lambda path, models: make_sdxl_checkpoint(path),
    "checkpoints/sd_xl_refiner_1.0.safetensors": lambda path, models: make_refiner_checkpoint(path),
    "checkpoints/sd3_medium_incl_clips.safetensors": lambda path, models: make_sd3_checkpoint(path),
    "diffusion_models/perflow-sdxl-base-v0-fix.safetensors": unet(SDXL_SMALL, seed=10),
    "diffusion_models/perflow-sd21-artius.safetensors": unet(SD21_SMALL, seed=11),
    "diffusion_models/instaflow-0.9b.safetensors": unet(SD15_TINY, seed=12, sign=-1),
    "diffusion_models/2-rectified-flow.safetensors": unet(SD15_TINY, seed=13, sign=-1),
    "text_encoders/perflow-sd21-artius-text-encoder.safetensors": lambda path, models: make_text_encoder(path),
    "vae/perflow-sd21-artius-vae.safetensors": lambda path, models: make_vae(path),
    "perflow/perflow-sd15-delta-v0-1.safetensors": lambda path, models: make_delta(path, models / SD15),
    "loras/add_detail.safetensors": lora(SD15, seed=14),
    "loras/blindbox_v1_mix.safetensors": lora(SD15, seed=15),
    "loras/pcm_sd15_smallcfg_4step_converted.safetensors": pcm_lora(SD15),
    "loras/pcm_sdxl_smallcfg_4step_converted.safetensors": pcm_lora(SDXL),
    "loras/pcm_deterministic_4step_shift3.safetensors": sd3_lora(seed=16),
    "loras/pcm_stochastic_shift3.safetensors": sd3_lora(seed=17),
    "controlnet/control_v11f1p_sd15_depth_fp16.safetensors": controlnet(seed=18),
    "controlnet/control_v11f1e_sd15_tile_fp16.safetensors": controlnet(seed=19),
    "controlnet/control_v11p_sd15_canny_fp16.safetensors": controlnet(seed=20),
    "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": lambda path, models: make_clip_vision(path),
    "ipadapter/ip-adapter_sd15.safetensors": ip_adapter(SD15_TINY),
    "ipadapter/ip-adapter_sdxl_vit-h.safetensors": ip_adapter(SDXL_SMALL),
    "diffusion_models/wonder3d-v1.0.bin": lambda path, models: make_wonder3d(path),
    "clip_vision/wonder3d-v1.0-image-encoder.bin": lambda path, models: make_clip_vision(path, kind="vitl"),
    "checkpoints/hunyuan3d-dit-v2_fp16.safetensors": lambda path, models: make_hunyuan3d(path),
    "checkpoints/hunyuan3d-dit-v2-mv_fp16.safetensors": lambda path, models: make_hunyuan3d(path, seed=24),
    "vae/triposplat_vae_decoder_fp16.safetensors": lambda path, models: make_triposplat_decoder(path),
    # Only names: each has one size, which takes minutes a picture on a CPU, and older ComfyUIs have none of them.
    "background_removal/birefnet.safetensors": lambda path, models: save_name(path),
    "clip_vision/dino_v3_vit_h.safetensors": lambda path, models: save_name(path),
    "diffusion_models/triposplat_fp16.safetensors": lambda path, models: save_name(path),
    "vae/flux2-vae.safetensors": lambda path, models: save_name(path),
    "checkpoints/model.ckpt": lambda path, models: save_name(path),  # TripoSR's pack is not here
}

TRAINED: dict[str, Maker] = {
    TRAINED_CHECKPOINT: lambda path, models: make_trained_checkpoint(path),
    TRAINED_DELTA: lambda path, models: make_trained_delta(path),
}

TABLES = {"trained": TRAINED, "graphs": GRAPHS}
