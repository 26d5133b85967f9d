"""PeRFlow training of adapters on a MODEL, step by step: the teacher's lines, the student's lessons, the optimizer."""

import math
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from ....perflow_core.sampling.parameterization import PredictionType, append_dims
from ....perflow_core.sampling.schedule import window_schedule
from ....perflow_core.sampling.solvers import sample_euler
from ....perflow_core.training.curriculum import Curriculum, Draw
from ....perflow_core.training.reflow import Line, TeacherWalk, TimePoints, lesson, line_through, window_start
from ..sampling.base_sampling import base_of
from ..sampling.perflow_sampling import PeRFlowSampling
from .examples import Examples
from .unet import Conditions, TrainingUNet

DROPOUT = 0.1  # of the prompts, as officially, so that CFG keeps working
WARM_UP = 20  # steps until the full learning rate
LARGEST_GRADIENT = 1.0
SMALLEST_SCALE = 2.0**-10  # of float16 gradients; below it they are not too small but broken
PREVIEW_CFG = 4.5  # of the official examples for 4 steps, where the student is guided at sampling


@dataclass(frozen=True)
class Settings:
    """As the node has them; guidance 0 is cfg_sync."""

    batch_size: int
    learning_rate: float
    rank: int
    windows: int
    prediction_type: PredictionType
    solving_steps: int
    guidance: float
    points_per_window: int
    gradient_checkpointing: bool
    seed: int


class NotFiniteError(ValueError):
    """A loss or gradient that is NaN or Inf; the adapters are as they were before that step."""


class Training:
    """A run: `step(i)` for i = first, first + 1, ... inside `with training.unet`."""

    def __init__(self, model: ModelPatcher, examples: Examples, settings: Settings):
        self.settings, self.examples = settings, examples
        self.base = model.get_model_object("model_sampling")
        base = base_of(model)
        points = TimePoints.coarse(settings.windows, settings.points_per_window)
        dropout = DROPOUT if examples.negative is not None else 0.0
        self.curriculum = Curriculum(points, examples.groups, settings.batch_size, dropout, settings.seed)
        self.unet = TrainingUNet(model, settings.rank, settings.seed % 2**63, settings.gradient_checkpointing)
        self.walk = TeacherWalk.plan(base.alphas_cumprod, settings.windows, settings.solving_steps).to(
            self.unet.device, torch.float32
        )
        self.sampling = PeRFlowSampling(model.model.model_config, *base, settings.prediction_type, settings.windows)
        self.chord = self.sampling.chord_on(self.unet.device)
        self.optimizer = torch.optim.AdamW(self.unet.adapters.parameters, settings.learning_rate, weight_decay=0.01)
        in_float16 = model.model.get_dtype_inference() == torch.float16
        self.scaler = GradScaler(self.unet.device.type, enabled=in_float16)
        self._lines: dict[int, tuple[Draw, Line]] = {}  # of the present round

    def step(self, i: int) -> tuple[list[int], list[float]]:
        """One step of the optimizer; returns the window and the loss of every row. Raises NotFiniteError."""
        draw, line = self._line(i)
        shown = lesson(self.settings.prediction_type, self.chord, line, self.curriculum.timesteps(i, draw.w))
        conditions = self.examples.conditions(draw.examples, draw.dropped, self.unet.device)
        m = self.unet(shown.z, shown.T, conditions, student=True)
        losses = (m - shown.m).square().flatten(start_dim=1).mean(dim=1)
        self._descend(i, losses.mean())
        return draw.w.tolist(), losses.tolist()

    def preview(self) -> Tensor:
        """The first example's prompt in four steps, x0 of shape [1, C, H, W] in the UNet's scale."""
        guided = self.settings.guidance == 0 and self.examples.negative is not None
        prompts = [self.examples.conditions([0], [drop], self.unet.device) for drop in (False, True)]

        def denoise(X: Tensor, sigma: Tensor) -> Tensor:
            z, T = self.sampling.calculate_input(sigma, X), self.sampling.timestep(sigma)
            m = self.unet(z, T, prompts[0], student=True)
            if guided:
                m = torch.lerp(self.unet(z, T, prompts[1], student=True), m, PREVIEW_CFG)
            return self.sampling.calculate_denoised(sigma, m, X)

        sigmas = window_schedule(self.sampling.chord, 4).to(self.unet.device, torch.float32)
        noise = _noise(self.settings.seed % 2**63, self.examples.x0([0])).to(self.unet.device)
        with torch.no_grad():
            return sample_euler(denoise, noise * (1 + sigmas[0] ** 2).sqrt(), sigmas)

    def _line(self, i: int) -> tuple[Draw, Line]:
        """The lines that step i teaches, walked by the teacher when they come first."""
        number, first = self.curriculum.batch(i), self.curriculum.round(i)
        if number not in self._lines:
            self._lines = {n: lines for n, lines in self._lines.items() if self.curriculum.round_of(n) == first}
            draw = self.curriculum.draw(number)
            self._lines[number] = draw, self._walked(draw)
        return self._lines[number]

    def _walked(self, draw: Draw) -> Line:
        device = self.unet.device
        x0 = self.examples.x0(draw.examples)
        noise, w = _noise(draw.noise_seed, x0).to(device), draw.w.to(device)
        guidance = self.settings.guidance
        dropped = [False] * len(draw.dropped) if guidance else draw.dropped
        prompt = self.examples.conditions(draw.examples, dropped, device)
        empty = None
        if guidance not in (0, 1):
            empty = self.examples.conditions(draw.examples, [True] * len(dropped), device)

        def eps(X: Tensor, entry: Tensor) -> Tensor:
            found = self._teacher(X, entry, prompt)
            return found if empty is None else torch.lerp(self._teacher(X, entry, empty), found, guidance)

        with torch.no_grad():
            X_s = window_start(self.chord, w, x0.to(device), noise)
            line = line_through(self.chord, w, X_s, self.walk(eps, X_s, w))
        return line

    def _teacher(self, X: Tensor, entry: Tensor, conditions: Conditions) -> Tensor:
        """The base model's noise prediction at X and an entry of its table, whatever it predicts itself."""
        comfy.model_management.throw_exception_if_processing_interrupted()  # a walk may have hundreds of calls
        sigma = self.walk.sigma[entry]
        m = self.unet(self.base.calculate_input(sigma, X), entry, conditions, student=False)
        return (X - self.base.calculate_denoised(sigma, m, X)) / append_dims(sigma, X)

    def _descend(self, i: int, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1, (i + 1) / WARM_UP)
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.unet.adapters.parameters, LARGEST_GRADIENT))
        too_large = self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_SCALE  # then the scale is lowered
        if not (math.isfinite(float(loss.detach())) and (math.isfinite(norm) or too_large)):
            raise NotFiniteError(f"The loss became NaN or Inf in training step {i + 1}")
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _noise(seed: int, like: Tensor) -> Tensor:
    """On the CPU, where it is the same for every machine."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
