"""The model files that the graphs ask for: the name on disk, where it is published, and the folder it goes to."""

from __future__ import annotations

from typing import NamedTuple

HUB = "https://huggingface.co/"
NON_COMMERCIAL = "CC-BY-NC 4.0"


class File(NamedTuple):
    directory: str
    name: str
    repository: str  # on huggingface.co, or a whole address
    path: str = ""  # in the repository; where its last part differs from `name`, the file is to be renamed
    licence: str = ""

    @property
    def url(self) -> str:
        return f"{HUB}{self.repository}/resolve/main/{self.path or self.name}" if self._on_hub else self.repository

    @property
    def saved(self) -> dict[str, str]:
        """What a loader node carries, for the page's list of missing models."""
        return {"name": self.name, "url": self.url, "directory": self.directory}

    @property
    def line(self) -> str:
        """One item of a note's list of files."""
        page = f"[{self.repository}]({HUB}{self.repository})" if self._on_hub else f"[civitai]({self.repository})"
        was = self.path.rsplit("/", 1)[-1]
        source = f"`{self.path}` of {page}, renamed" if was and was != self.name else page
        licence = f". {self.licence}" if self.licence else ""
        return f"- `models/{self.directory}/` **{self.name}**: {source}{licence}"

    @property
    def _on_hub(self) -> bool:
        return not self.repository.startswith("https://")


class Own(str):
    """The name of what only the user has: a folder of pictures, a delta that was trained. It has no address."""


def trained(prefix: str) -> Own:
    """The first file that Train PeRFlow Delta writes with that filename_prefix."""
    return Own(f"{prefix}_00001_.safetensors")


# The small model of this repository: scripts/install_small_model.py makes them.
SMALL_CHECKPOINT, SMALL_DELTA = Own("drawn-scenes.safetensors"), Own("drawn-scenes-perflow.safetensors")


def file_list(*files: File) -> str:
    return "**Files**\n" + "\n".join(file.line for file in files)


SD15 = File("checkpoints", "v1-5-pruned-emaonly-fp16.safetensors", "Comfy-Org/stable-diffusion-v1-5-archive")
SDXL = File("checkpoints", "sd_xl_base_1.0.safetensors", "stabilityai/stable-diffusion-xl-base-1.0")
SDXL_REFINER = File("checkpoints", "sd_xl_refiner_1.0.safetensors", "stabilityai/stable-diffusion-xl-refiner-1.0")
SD3 = File(
    "checkpoints",
    "sd3_medium_incl_clips.safetensors",
    "stabilityai/stable-diffusion-3-medium",
    licence="The page asks you to accept its licence.",
)

SD35 = File(
    "checkpoints",
    "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
    "Comfy-Org/stable-diffusion-3.5-fp8",
    licence="11.6 GB, Stability AI Community License",
)
Z_IMAGE = File(
    "diffusion_models",
    "z_image_bf16.safetensors",
    "Comfy-Org/z_image",
    "split_files/diffusion_models/z_image_bf16.safetensors",
    "12.3 GB, Apache-2.0",
)
Z_IMAGE_TEXT = File(
    "text_encoders",
    "qwen_3_4b.safetensors",
    "Comfy-Org/z_image_turbo",
    "split_files/text_encoders/qwen_3_4b.safetensors",
    "8.0 GB, Apache-2.0",
)
FLUX_VAE = File(
    "vae",
    "ae.safetensors",
    "Comfy-Org/Lumina_Image_2.0_Repackaged",
    "split_files/vae/ae.safetensors",
    "0.3 GB, Apache-2.0",
)
FLUX = File(
    "diffusion_models",
    "flux1-dev.safetensors",
    "Comfy-Org/flux1-dev",
    licence="23.8 GB, FLUX.1 [dev] Non-Commercial License",
)
_FLUX_TEXT = "comfyanonymous/flux_text_encoders"
FLUX_CLIP_L = File("text_encoders", "clip_l.safetensors", _FLUX_TEXT, licence="0.2 GB")
FLUX_T5 = File("text_encoders", "t5xxl_fp16.safetensors", _FLUX_TEXT, licence="9.8 GB, Apache-2.0")
_QWEN_IMAGE = "Comfy-Org/Qwen-Image_ComfyUI"
QWEN_IMAGE = File(
    "diffusion_models",
    "qwen_image_fp8_e4m3fn.safetensors",
    _QWEN_IMAGE,
    "split_files/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
    "20.4 GB, Apache-2.0",
)
QWEN_IMAGE_TEXT = File(
    "text_encoders",
    "qwen_2.5_vl_7b_fp8_scaled.safetensors",
    _QWEN_IMAGE,
    "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    "9.4 GB, Apache-2.0",
)
QWEN_IMAGE_VAE = File(
    "vae", "qwen_image_vae.safetensors", _QWEN_IMAGE, "split_files/vae/qwen_image_vae.safetensors", "0.3 GB, Apache-2.0"
)
_WAN = "Comfy-Org/Wan_2.2_ComfyUI_Repackaged"
WAN_HIGH = File(
    "diffusion_models",
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
    _WAN,
    "split_files/diffusion_models/wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors",
    "14.3 GB, Apache-2.0",
)
WAN_LOW = File(
    "diffusion_models",
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
    _WAN,
    "split_files/diffusion_models/wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors",
    "14.3 GB, Apache-2.0",
)
WAN_TEXT = File(
    "text_encoders",
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "Comfy-Org/Wan_2.1_ComfyUI_repackaged",
    "split_files/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "6.7 GB, Apache-2.0",
)
WAN_VAE = File("vae", "wan_2.1_vae.safetensors", _WAN, "split_files/vae/wan_2.1_vae.safetensors", "0.3 GB, Apache-2.0")

SD15_DELTA = File(
    "perflow",
    "perflow-sd15-delta-v0-1.safetensors",
    "hansyan/perflow-sd15-delta-weights",
    "diffusion_pytorch_model.v0-1.safetensors",
    NON_COMMERCIAL,
)
SDXL_PERFLOW = File(
    "diffusion_models",
    "perflow-sdxl-base-v0-fix.safetensors",
    "hansyan/perflow-sdxl-base",
    "unet/diffusion_pytorch_model.v0-fix.safetensors",
    NON_COMMERCIAL,
)
_ARTIUS = "hansyan/perflow-sd21-artius"
SD21_PERFLOW = File(
    "diffusion_models",
    "perflow-sd21-artius.safetensors",
    _ARTIUS,
    "unet/diffusion_pytorch_model.safetensors",
    NON_COMMERCIAL,
)
SD21_TEXT = File(
    "text_encoders", "perflow-sd21-artius-text-encoder.safetensors", _ARTIUS, "text_encoder/model.safetensors"
)
SD21_VAE = File("vae", "perflow-sd21-artius-vae.safetensors", _ARTIUS, "vae/diffusion_pytorch_model.safetensors")

INSTAFLOW = File(
    "diffusion_models",
    "instaflow-0.9b.safetensors",
    "XCLiu/instaflow_0_9B_from_sd_1_5",
    "unet/diffusion_pytorch_model.safetensors",
    NON_COMMERCIAL,
)
TWO_RECTIFIED_FLOW = File(
    "diffusion_models",
    "2-rectified-flow.safetensors",
    "XCLiu/2_rectified_flow_from_sd_1_5",
    "unet/diffusion_pytorch_model.safetensors",
    NON_COMMERCIAL,
)

_CONTROLNETS = "comfyanonymous/ControlNet-v1-1_fp16_safetensors"
DEPTH = File("controlnet", "control_v11f1p_sd15_depth_fp16.safetensors", _CONTROLNETS)
CANNY = File("controlnet", "control_v11p_sd15_canny_fp16.safetensors", _CONTROLNETS)
TILE = File("controlnet", "control_v11f1e_sd15_tile_fp16.safetensors", _CONTROLNETS)

ADD_DETAIL = File("loras", "add_detail.safetensors", "OedoSoldier/detail-tweaker-lora")
BLINDBOX = File("loras", "blindbox_v1_mix.safetensors", "https://civitai.com/api/download/models/32988")

_PCM = "wangfuyun/PCM_Weights"
PCM_SD15 = File(
    "loras", "pcm_sd15_smallcfg_4step_converted.safetensors", _PCM, "sd15/pcm_sd15_smallcfg_4step_converted.safetensors"
)
PCM_SDXL = File(
    "loras", "pcm_sdxl_smallcfg_4step_converted.safetensors", _PCM, "sdxl/pcm_sdxl_smallcfg_4step_converted.safetensors"
)
PCM_SD3 = File(
    "loras", "pcm_deterministic_4step_shift3.safetensors", _PCM, "sd3/pcm_deterministic_4step_shift3.safetensors"
)
PCM_SD3_STOCHASTIC = File("loras", "pcm_stochastic_shift3.safetensors", _PCM, "sd3/pcm_stochastic_shift3.safetensors")

VIT_H = File(
    "clip_vision",
    "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    "h94/IP-Adapter",
    "models/image_encoder/model.safetensors",
)
IP_ADAPTER_SD15 = File(
    "ipadapter", "ip-adapter_sd15.safetensors", "h94/IP-Adapter", "models/ip-adapter_sd15.safetensors"
)
IP_ADAPTER_SDXL = File(
    "ipadapter", "ip-adapter_sdxl_vit-h.safetensors", "h94/IP-Adapter", "sdxl_models/ip-adapter_sdxl_vit-h.safetensors"
)

_WONDER3D = "flamehaze1115/wonder3d-v1.0"
WONDER3D = File(
    "diffusion_models", "wonder3d-v1.0.bin", _WONDER3D, "unet/diffusion_pytorch_model.bin", "AGPL-3.0 on its page."
)
WONDER3D_IMAGE_ENCODER = File(
    "clip_vision", "wonder3d-v1.0-image-encoder.bin", _WONDER3D, "image_encoder/pytorch_model.bin"
)
BACKGROUND_REMOVAL = File(
    "background_removal", "birefnet.safetensors", "Comfy-Org/BiRefNet", "background_removal/birefnet.safetensors", "MIT"
)

_HUNYUAN3D = "Comfy-Org/hunyuan3D_2.0_repackaged"
_TENCENT = "licence of Tencent: not for the European Union, the United Kingdom and South Korea"
HUNYUAN3D = File(
    "checkpoints",
    "hunyuan3d-dit-v2_fp16.safetensors",
    _HUNYUAN3D,
    "split_files/hunyuan3d-dit-v2_fp16.safetensors",
    f"From tencent/Hunyuan3D-2, {_TENCENT}",
)
HUNYUAN3D_VIEWS = File(
    "checkpoints",
    "hunyuan3d-dit-v2-mv_fp16.safetensors",
    _HUNYUAN3D,
    "split_files/hunyuan3d-dit-v2-mv_fp16.safetensors",
    f"From tencent/Hunyuan3D-2mv, {_TENCENT}",
)

_TRIPOSPLAT = "VAST-AI/TripoSplat"
TRIPOSPLAT = File(
    "diffusion_models",
    "triposplat_fp16.safetensors",
    _TRIPOSPLAT,
    "diffusion_models/triposplat_fp16.safetensors",
    "MIT",
)
TRIPOSPLAT_DECODER = File(
    "vae",
    "triposplat_vae_decoder_fp16.safetensors",
    _TRIPOSPLAT,
    "vae/triposplat_vae_decoder_fp16.safetensors",
    "MIT",
)
TRIPOSPLAT_IMAGE_ENCODER = File(
    "clip_vision",
    "dino_v3_vit_h.safetensors",
    _TRIPOSPLAT,
    "clip_vision/dino_v3_vit_h.safetensors",
    "Meta's DINOv3 licence",
)
FLUX2_VAE = File("vae", "flux2-vae.safetensors", _TRIPOSPLAT, "vae/flux2-vae.safetensors")

TRIPOSR = File("checkpoints", "model.ckpt", "stabilityai/TripoSR", licence="MIT")
