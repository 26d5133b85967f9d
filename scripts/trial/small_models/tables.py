"""The small models and their file names: the trained one, and a random one for every file that the graphs ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .checkpoints import (
    make_checkpoint,
    make_refiner_checkpoint,
    make_sd3_checkpoint,
    make_sd35_checkpoint,
    make_sdxl_checkpoint,
)
from .deltas import make_delta
from .flows import known_flows, make_flow, make_low_rank_delta, make_qwen_image
from .hunyuan3d import make_hunyuan3d
from .image_prompts import make_clip_vision, make_ip_adapter
from .loras import make_lora, make_pcm_lora, make_sd3_lora
from .sparse_files import save_name
from .text_models import make_text_encoder
from .trained import STORED, make_flow_checkpoint, make_flow_delta, make_trained_checkpoint, make_trained_delta
from .triposplat import make_triposplat_decoder
from .unets import SD15_TINY, SD21_SMALL, SDXL_SMALL, make_controlnet, make_unet
from .vaes import make_flux_vae, make_vae, make_wan_vae
from .wonder3d import make_wonder3d

Table = dict[str, Callable[[Path], object]]  # a file's name -> what writes it

TRAINED_CHECKPOINT = "checkpoints/drawn-scenes.safetensors"
TRAINED_DELTA = "perflow/drawn-scenes-perflow.safetensors"
FLOW_CHECKPOINT = "checkpoints/drawn-scenes-flow.safetensors"
FLOW_DELTA = "perflow/drawn-scenes-flow-perflow.safetensors"
SD15 = "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
SDXL = "checkpoints/sd_xl_base_1.0.safetensors"
SD35 = "checkpoints/sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors"
Z_IMAGE = "diffusion_models/z_image_bf16.safetensors"
QWEN_IMAGE = "diffusion_models/qwen_image_fp8_e4m3fn.safetensors"
FLUX = "diffusion_models/flux1-dev.safetensors"
WAN_HIGH = "diffusion_models/wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"
WAN_LOW = "diffusion_models/wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors"


def trained(_: Path) -> Table:
    return {TRAINED_CHECKPOINT: make_trained_checkpoint, TRAINED_DELTA: make_trained_delta}


def trained_flow(_: Path) -> Table:
    """The delta is trained on the checkpoint, so the checkpoint may be there before it."""
    delta: Table = {FLOW_DELTA: make_flow_delta} if (STORED / "flow_delta.safetensors").is_file() else {}
    return {FLOW_CHECKPOINT: make_flow_checkpoint, **delta}


def graphs(models: Path) -> Table:
    """In this order, since some are made from others, which are in the folder `models` then."""
    sd15, sdxl = models / SD15, models / SDXL
    return {
        SD15: partial(make_checkpoint, unet_config=SD15_TINY),
        SDXL: make_sdxl_checkpoint,
        "checkpoints/sd_xl_refiner_1.0.safetensors": make_refiner_checkpoint,
        "checkpoints/sd3_medium_incl_clips.safetensors": make_sd3_checkpoint,
        "diffusion_models/perflow-sdxl-base-v0-fix.safetensors": partial(make_unet, preset=SDXL_SMALL, seed=10),
        "diffusion_models/perflow-sd21-artius.safetensors": partial(make_unet, preset=SD21_SMALL, seed=11),
        "diffusion_models/instaflow-0.9b.safetensors": partial(make_unet, preset=SD15_TINY, seed=12, sign=-1),
        "diffusion_models/2-rectified-flow.safetensors": partial(make_unet, preset=SD15_TINY, seed=13, sign=-1),
        "text_encoders/perflow-sd21-artius-text-encoder.safetensors": make_text_encoder,
        "vae/perflow-sd21-artius-vae.safetensors": make_vae,
        "perflow/perflow-sd15-delta-v0-1.safetensors": partial(make_delta, checkpoint=sd15),
        "loras/add_detail.safetensors": partial(make_lora, checkpoint=sd15, seed=14, text=True),
        "loras/blindbox_v1_mix.safetensors": partial(make_lora, checkpoint=sd15, seed=15, text=True),
        "loras/pcm_sd15_smallcfg_4step_converted.safetensors": partial(make_pcm_lora, checkpoint=sd15),
        "loras/pcm_sdxl_smallcfg_4step_converted.safetensors": partial(make_pcm_lora, checkpoint=sdxl),
        "loras/pcm_deterministic_4step_shift3.safetensors": partial(make_sd3_lora, seed=16),
        "loras/pcm_stochastic_shift3.safetensors": partial(make_sd3_lora, seed=17),
        "controlnet/control_v11f1p_sd15_depth_fp16.safetensors": partial(make_controlnet, preset=SD15_TINY, seed=18),
        "controlnet/control_v11f1e_sd15_tile_fp16.safetensors": partial(make_controlnet, preset=SD15_TINY, seed=19),
        "controlnet/control_v11p_sd15_canny_fp16.safetensors": partial(make_controlnet, preset=SD15_TINY, seed=20),
        "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": make_clip_vision,
        "ipadapter/ip-adapter_sd15.safetensors": partial(make_ip_adapter, preset=SD15_TINY),
        "ipadapter/ip-adapter_sdxl_vit-h.safetensors": partial(make_ip_adapter, preset=SDXL_SMALL),
        "diffusion_models/wonder3d-v1.0.bin": make_wonder3d,
        "clip_vision/wonder3d-v1.0-image-encoder.bin": partial(make_clip_vision, kind="vitl"),
        "checkpoints/hunyuan3d-dit-v2_fp16.safetensors": make_hunyuan3d,
        "checkpoints/hunyuan3d-dit-v2-mv_fp16.safetensors": partial(make_hunyuan3d, seed=24),
        "vae/triposplat_vae_decoder_fp16.safetensors": make_triposplat_decoder,
        # Only names: each has one size, which takes minutes a picture on a CPU, and older ComfyUIs have none of them.
        "background_removal/birefnet.safetensors": save_name,
        "clip_vision/dino_v3_vit_h.safetensors": save_name,
        "diffusion_models/triposplat_fp16.safetensors": save_name,
        "vae/flux2-vae.safetensors": save_name,
        "checkpoints/model.ckpt": save_name,  # TripoSR's pack is not here
        SD35: make_sd35_checkpoint,
        # ComfyUI knows Z-Image by its real width, which takes a minute: in its place is one of SD3.5's layout.
        Z_IMAGE: partial(make_flow, name="sd3.5", seed=25),
        QWEN_IMAGE: make_qwen_image,
        FLUX: partial(make_flow, name="flux"),
        WAN_HIGH: partial(make_flow, name="wan2.1", seed=26),
        WAN_LOW: partial(make_flow, name="wan2.1", seed=27),
        "vae/ae.safetensors": make_flux_vae,
        "vae/qwen_image_vae.safetensors": make_wan_vae,
        "vae/wan_2.1_vae.safetensors": partial(make_wan_vae, seed=28),
        # Only names: text encoders of one size, of up to seven thousand million weights.
        "text_encoders/qwen_3_4b.safetensors": save_name,
        "text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors": save_name,
        "text_encoders/clip_l.safetensors": save_name,
        "text_encoders/t5xxl_fp16.safetensors": save_name,
        "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors": save_name,
        # As a user has trained them.
        "perflow/my-perflow-sd3.5_00001_.safetensors": partial(make_low_rank_delta, transformer=models / SD35),
        "perflow/my-perflow-z-image_00001_.safetensors": partial(make_low_rank_delta, transformer=models / Z_IMAGE),
        "perflow/my-perflow-qwen-image_00001_.safetensors": partial(
            make_low_rank_delta, transformer=models / QWEN_IMAGE, layers="to_out"
        ),
        "perflow/my-perflow-flux_00001_.safetensors": partial(make_low_rank_delta, transformer=models / FLUX),
        "perflow/my-perflow-wan2.2-high_00001_.safetensors": partial(
            make_low_rank_delta, transformer=models / WAN_HIGH, edges="1,0.94,0.875"
        ),
        "perflow/my-perflow-wan2.2-low_00001_.safetensors": partial(
            make_low_rank_delta, transformer=models / WAN_LOW, edges="0.875,0.6,0"
        ),
    }


def flows(_: Path) -> Table:
    return {flow_file(name): partial(make_flow, name=name) for name in known_flows()}


def flow_file(name: str) -> str:
    return f"diffusion_models/flow-{name}.safetensors"


TABLES = {"trained": trained, "trained_flow": trained_flow, "graphs": graphs, "flows": flows}
