"""The analytic model of tests/golden as a UNet inside a real ComfyUI model, and one-line sampling with it."""

from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.supported_models
import torch
from comfy.model_management import get_torch_device
from torch import Tensor

CONFIGS = {768: comfy.supported_models.SD15, 1024: comfy.supported_models.SD20}


class AnalyticUNet(torch.nn.Module):
    """m = A tanh(a x + b t / 1000 + c) + B x, the constants chosen by the conditioning: context 1 or 0."""

    def __init__(self, device: Any = None, operations: Any = None, **config: Any):
        super().__init__()
        self.dtype = torch.float32
        self.cond: dict[str, float] = {}
        self.uncond: dict[str, float] = {}
        self.seen: list[float] = []
        self.positive_seen = False  # in the last of those calls
        self.weight = torch.nn.Parameter(torch.zeros(1, device=device))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, control: Any = None, **kwargs: Any) -> Tensor:
        self._note(timesteps[0].item(), bool((context[:, 0, 0] == 1).any()))
        rows = [
            self.output(self.cond if context[row, 0, 0] == 1 else self.uncond, x[row], timesteps[row])
            for row in range(len(x))
        ]
        return torch.stack(rows)

    def _note(self, timestep: float, positive: bool) -> None:
        """One entry a call of the sampler, though ComfyUI makes two of it, in any order, where memory is short."""
        if self.seen and self.seen[-1] == timestep and not (positive and self.positive_seen):
            self.positive_seen |= positive
        else:
            self.seen.append(timestep)
            self.positive_seen = positive

    @staticmethod
    def output(p: dict[str, float], x: Tensor, t: Tensor) -> Tensor:
        return p["A"] * torch.tanh(p["a"] * x + p["b"] * t / 1000 + p["c"]) + p["B"] * x


def analytic_model(reference: dict[str, Any], width: int = 768) -> comfy.model_patcher.ModelPatcher:
    """A MODEL whose UNet is the analytic one with a reference file's constants."""
    config = CONFIGS[width]({"context_dim": width, "dtype": torch.float32})
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, "cpu", unet_model=AnalyticUNet)
    model.diffusion_model.cond = reference["model_cond"]
    model.diffusion_model.uncond = reference["model_uncond"]
    return comfy.model_patcher.ModelPatcher(model, get_torch_device(), torch.device("cpu"))


def conditioning(value: float, width: int = 768, **options: Any) -> list[Any]:
    """CONDITIONING that the analytic UNet reads as positive (1) or negative (0)."""
    return [[torch.full((1, 77, width), value), options]]


def sample(
    model: comfy.model_patcher.ModelPatcher,
    sigmas: Tensor,
    noise: Tensor,
    latent: Tensor | None = None,
    cfg: float = 1.0,
    sampler: Any = "euler",
    **options: Any,
) -> Tensor:
    """What SamplerCustom does, with the noise given; latents in the model's own scale in and out."""
    scale = model.model.latent_format.scale_factor
    if isinstance(sampler, str):
        sampler = comfy.samplers.sampler_object(sampler)
    latent = torch.zeros_like(noise) if latent is None else latent / scale
    out = comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, conditioning(1), conditioning(0), latent, disable_pbar=True, **options
    )
    return out * scale


def tensor(values: list[float], shape: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of what is expected."""
    found, expected = found.double(), expected.double()
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
