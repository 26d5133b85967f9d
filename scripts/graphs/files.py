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
