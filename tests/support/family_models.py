"""The analytic UNet as InstaFlow, PCM and Rectified Diffusion meet it: with a layout to tell, and as SD3."""

from typing import Any

import comfy.model_base
import comfy.supported_models
import torch
from analytic_model import AnalyticUNet, conditioning, tensor
from comfy.model_management import get_torch_device
from comfy.model_patcher import ModelPatcher

EMPTY = {"samples": torch.zeros(1, 4, 4, 4)}


class LaidOutUNet(AnalyticUNet):
    """It has the one tensor by which the pack tells SD1.5, SD2.x and SDXL."""

    def __init__(self, context_dim: int = 768, **config: Any):
        super().__init__(**config)
        self.middle_block = torch.nn.ModuleDict({"attn2": torch.nn.Module()})
        self.middle_block["attn2"].to_k = torch.nn.Linear(context_dim, 1, bias=False)


class AnalyticSD3(comfy.model_base.SD3):
    """SD3 to ComfyUI, for all that its UNet is the analytic one."""

    def __init__(self, config: Any):
        kind = comfy.model_base.ModelType.FLOW
        comfy.model_base.BaseModel.__init__(self, config, kind, "cpu", unet_model=AnalyticUNet)

    def encode_adm(self, **kwargs: Any) -> None:
        return None


def laid_out_model(reference: dict[str, Any], width: int = 768, kind: str = "EPS") -> ModelPatcher:
    """width: 768 for SD1.5, 1024 for SD2.x, 2048 for SDXL; kind: what it samples as."""
    config = comfy.supported_models.SD15({"context_dim": width, "dtype": torch.float32})
    kind = comfy.model_base.ModelType[kind]
    return _patcher(comfy.model_base.BaseModel(config, kind, "cpu", unet_model=LaidOutUNet), reference)


def sd3_model(reference: dict[str, Any]) -> ModelPatcher:
    """With SD3's own shift, 3; in SD1.5's latent scale."""
    config = comfy.supported_models.SD15({"context_dim": 768, "dtype": torch.float32})
    config.sampling_settings = {"shift": 3.0}
    return _patcher(AnalyticSD3(config), reference)


def _patcher(model: comfy.model_base.BaseModel, reference: dict[str, Any]) -> ModelPatcher:
    model.diffusion_model.cond = reference["model_cond"]
    model.diffusion_model.uncond = reference["model_uncond"]
    return ModelPatcher(model, get_torch_device(), torch.device("cpu"))


def start(reference: dict[str, Any]) -> torch.Tensor:
    return tensor(reference["x_init"], reference["shape"]).float()


def told(model: ModelPatcher) -> list[float]:
    """The timesteps that the UNet has seen since the last call."""
    seen = list(model.model.diffusion_model.seen)
    model.model.diffusion_model.seen.clear()
    return seen


def ksampler(run: Any, model: ModelPatcher, steps: int, scheduler: str, **inputs: Any) -> torch.Tensor:
    """The KSampler node on an empty latent; returns the samples."""
    defaults = {"seed": 5, "cfg": 1.0, "sampler_name": "euler", "denoise": 1.0, "latent_image": EMPTY}
    prompts = {"positive": conditioning(1), "negative": conditioning(0)}
    common = defaults | prompts | {"model": model, "steps": steps, "scheduler": scheduler}
    return run("KSampler", **(common | inputs))[0]["samples"]


def advanced(run: Any, model: ModelPatcher, first: int, last: int, steps: int = 4, **inputs: Any) -> dict[str, Any]:
    """The KSamplerAdvanced node from step `first` to step `last`, noise added at step 0 only; returns the LATENT."""
    common = {"noise_seed": 5, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "latent_image": EMPTY}
    common |= {"positive": conditioning(1), "negative": conditioning(0), "model": model, "steps": steps}
    common |= {"add_noise": "disable" if first else "enable", "start_at_step": first, "end_at_step": last}
    common |= {"return_with_leftover_noise": "enable" if last < steps else "disable"}
    return run("KSamplerAdvanced", **(common | inputs))[0]
