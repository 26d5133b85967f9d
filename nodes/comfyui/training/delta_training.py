"""PeRFlow training of adapters on a MODEL, step by step."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from ....perflow_core.sampling.parameterization import PredictionType, UNet, denoiser
from ....perflow_core.sampling.schedule import window_schedule
from ....perflow_core.sampling.solvers import sample_euler
from ....perflow_core.training.curriculum import Draw, Purpose, Rounds, draw_batch, normal
from ....perflow_core.training.descent import Descent, WindowLosses
from ....perflow_core.training.power_average import PowerAverage
from ....perflow_core.training.reflow import Batch, Reflow, Segment
from ....perflow_core.training.time_points import TimePoints
from ..sampling.base_sampling import base_of
from .examples import Examples, Together
from .training_unet import TrainingUNet

DEPTH, USES = 16, 4  # of a round of batches
DROPOUT = 0.1  # of the prompts, as officially, so that CFG keeps working
WARM_UP = 20  # steps until the full learning rate
LARGEST_GRADIENT = 1.0
DRAWING_STEPS, DRAWING_CFG = 24, 4.5  # of the teacher's own pictures
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
    edges: list[float] | None = None  # of a flow model's windows, in place of their number
    offloading: bool = False
    guidance_up_to: float = 0.0  # of what a model of Flux' kind is given beside the prompt


class _WithMutations(Descent):
    """For blocks that add to their own inputs in place: autograd keeps what they were."""

    def accumulating(self) -> AbstractContextManager[object]:
        return torch.autograd.graph.allow_mutation_on_saved_tensors()


class DeltaTraining:
    """A run: `step(i)` for i = first, first + 1, ... inside `with training.unet.loaded()`."""

    def __init__(self, model: ModelPatcher, examples: Examples, settings: Settings):
        self.settings, self.examples = settings, examples
        self.base = base_of(model)
        self.chord = self.base.chord(settings.edges or settings.windows)  # type: ignore[arg-type]  # edges: of flows
        points = TimePoints.coarse(self.chord.windows, settings.points_per_window)
        trajectory = self.base.trajectory(self.chord, settings.solving_steps)
        memory = settings.gradient_checkpointing, settings.offloading
        self.unet = TrainingUNet(model, settings.rank, settings.seed % 2**63, *memory)
        device = self.unet.device
        self.reflow = Reflow(settings.prediction_type, self.chord, points, trajectory).to(device, torch.float32)
        self.optimizer = torch.optim.AdamW(self.unet.adapters.parameters, settings.learning_rate, weight_decay=0.01)
        in_float16 = model.model.get_dtype_inference() == torch.float16
        self.scaler = GradScaler(device.type, enabled=in_float16)
        # Checkpointed blocks keep their inputs themselves.
        kind = Descent if settings.gradient_checkpointing else _WithMutations
        self.descent = kind(self.optimizer, LARGEST_GRADIENT, self.scaler)
        self.average = PowerAverage(self.unet.adapters.parameters)
        self.rounds = Rounds(DEPTH, USES, settings.seed)
        self._segments: dict[int, tuple[Draw, Segment]] = {}  # by number of the batch, of the present round

    def step(self, i: int) -> WindowLosses:
        """One step of the optimizer. Raises NotFiniteError."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1, (i + 1) / WARM_UP)
        losses = self.reflow.step([self.batch(i)], self.descent)
        self.average.update(i + 1)
        return losses

    def batch(self, i: int) -> Batch:
        """What step i trains on."""
        draw, segment = self.segment(i)
        T = self.reflow.points.timesteps(draw.w, self.rounds.uniform(i, len(draw.w)))
        student = partial(self._call, prompts=self._conditions(draw, draw.dropped, student=True), student=True)
        return Batch(segment, T, student)

    def segment(self, i: int) -> tuple[Draw, Segment]:
        """The rows that step i trains on, and their segments, which the teacher makes when they come first."""
        first = self.rounds.number(i) * DEPTH
        number = first + int(self.rounds.order(i))
        if number not in self._segments:
            self._segments = {n: segment for n, segment in self._segments.items() if n >= first}
            self._segments[number] = self._made(number)
        return self._segments[number]

    def draw(self, i: int) -> None:
        """Let the teacher draw example i, which has a prompt and no picture, in DRAWING_STEPS steps."""
        noise = normal(self.examples.latents[i].shape, [i], self.settings.seed, Purpose.SAMPLE).to(self.unet.device)
        trajectory = self.base.trajectory(self.base.chord(1), DRAWING_STEPS).to(self.unet.device, torch.float32)
        guidance = self.drawing_guidance
        prompts = [self._prompt(i, dropped, student=False) for dropped in ([True, False] if guidance != 1 else [False])]
        network = self._network(prompts, student=False)
        d = self.base.derivative(network, trajectory, guidance)
        with torch.no_grad():
            picture = trajectory.sample(d, self.base.noise_scale * noise)
        self.examples.latents[i] = picture[0].cpu()

    @property
    def drawing_guidance(self) -> float:
        """CFG of the teacher's own pictures: that of the training; without one a usual one, if CFG is of use."""
        return self.settings.guidance or (DRAWING_CFG if self.uses_cfg else 1.0)

    @property
    def uses_cfg(self) -> bool:
        """Whether the student is guided at sampling: not if guidance is an input of the network."""
        return self.examples.negative is not None and not self.examples.takes_guidance

    @property
    def is_part(self) -> bool:
        """Whether another model has the rest of the path."""
        return self.chord.windows.is_part

    def preview(self) -> Tensor:
        """The first example's prompt in four steps, x0 of shape [1, C, H, W] in the UNet's scale."""
        guided = self.settings.guidance == 0 and self.uses_cfg
        prompts = [self._prompt(0, dropped, student=True) for dropped in ([True, False] if guided else [False])]
        network = self._network(prompts, student=True)
        denoise = denoiser(network, self.settings.prediction_type, self.reflow.chord, PREVIEW_CFG)
        sigmas = window_schedule(self.chord, 4).to(torch.float32).to(self.unet.device)
        noise = normal(self.examples.latents[0].shape, [0], self.settings.seed, Purpose.PREVIEW).to(self.unet.device)
        with torch.no_grad(), self.average.in_place():
            return sample_euler(denoise, self.base.pure_noise(noise, sigmas[0]), sigmas)

    def _made(self, number: int) -> tuple[Draw, Segment]:
        """The teacher's call. HunyuanVideo's code takes one mask for all rows, and stops at another number of them."""
        try:
            return self._walked(number)
        except comfy.model_management.OOM_EXCEPTION:
            raise
        except RuntimeError as error:
            if self.settings.batch_size == 1 or not self.examples.together:
                raise
            logging.info("This model is called with one prompt at a time (%s).", error)
            self.examples.together = False
            return self._walked(number)

    def _walked(self, number: int) -> tuple[Draw, Segment]:
        settings, examples = self.settings, self.examples
        dropout = DROPOUT if examples.negative is not None else 0.0
        B, guided = settings.batch_size, settings.guidance not in (0, 1)
        draw = draw_batch(self.reflow.points, examples.groups, B, dropout, settings.seed, number)
        dropped = [False] * B if settings.guidance else draw.dropped
        prompts = [self._conditions(draw, rows, student=False) for rows in ([[True] * B] if guided else []) + [dropped]]
        network = self._network(prompts, student=False)
        teacher = self.base.derivative(network, self.reflow.trajectory, settings.guidance)
        x0 = examples.x0(draw.examples)
        noise = normal(x0.shape[1:], range(number * B, (number + 1) * B), settings.seed, Purpose.NOISE)
        noise = self.base.noise_scale * noise
        w, x0, noise = (part.to(self.unet.device) for part in (draw.w, x0, noise))
        return draw, self.reflow.segment(teacher, w, x0, noise)

    def _conditions(self, draw: Draw, dropped: list[bool], student: bool) -> list[Together]:
        self.unet.adapters.on = student  # a part of the network may encode the prompts further, as LTX-2's does
        return self.examples.conditions(draw.examples, dropped, self.unet.device, draw.guidance)

    def _prompt(self, i: int, dropped: bool, student: bool) -> list[Together]:
        self.unet.adapters.on = student
        return self.examples.conditions([i], [dropped], self.unet.device)

    def _network(self, prompts: list[list[Together]], student: bool) -> UNet:
        def outputs(z: Tensor, T: Tensor) -> list[Tensor]:
            comfy.model_management.throw_exception_if_processing_interrupted()  # a trajectory has many calls
            return [self._call(z, T, those, student) for those in prompts]

        return outputs

    def _call(self, z: Tensor, T: Tensor, prompts: list[Together], student: bool) -> Tensor:
        level = self.base.level(self.reflow.chord, T)
        if len(prompts) == 1:
            return self.unet(z, level, prompts[0].conditions, student)
        parts = [self.unet(z[rows], level[rows], conditions, student) for rows, conditions in prompts]
        order = torch.tensor([row for rows, _ in prompts for row in rows], device=z.device)
        return torch.cat(parts)[order.argsort()]
