"""Phase Schedule (PCM): the timesteps of phased consistency models as SIGMAS."""

from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_sampling as stock
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..perflow_core.sampling import phased
from ..perflow_core.sampling.phased import FINE_TIMESTEPS, GRIDS, Grid, Timesteps, is_distilled, last_steps
from ..perflow_core.sampling.schedule import End
from ..perflow_core.sampling.windows import NUM_TIMESTEPS
from .comfyui import node_text, shared_inputs
from .comfyui.sampling import pcm_text
from .comfyui.sampling.base_sampling import bases_of
from .comfyui.sampling.perflow_sampling import PeRFlowSampling
from .comfyui.sampling.rectified_sampling import RectifiedFlowSampling
from .comfyui.weights.unet_weights import layout_of

OTHER_FINE_TIMESTEPS = 50  # of a family that PCM was not trained for


class PCMPhaseSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PCMPhaseSchedule",
            display_name="Phase Schedule (PCM)",
            category="PeRFlow",
            description="Gives the steps that PCM's LoRAs for SD1.5, SDXL and SD3 were made for. The node shows the "
            "timesteps and the files that they fit.",
            search_aliases=["pcm", "phased consistency", "phased consistency model", "scheduler", "sigmas"]
            + ["tcd", "trailing", "lcm"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD1.5, SDXL or SD3 model with a PCM LoRA. The node reads the shift from an SD3 model.",
                ),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="The number in the LoRA's name: 2, 4, 8 or 16. An lcmlike LoRA takes any number; 4 is "
                    "usual.",
                ),
                io.Combo.Input(
                    "grid",
                    options=list(GRIDS),
                    default="trailing",
                    tooltip="trailing: as in PCM's sampling code, 999 749 499 249. training_edges: where the phases "
                    "ended in training, for SD1.5 999 739 499 239. tcd: for PCM's demo and lcmlike LoRAs, 999 759 499 "
                    "259.",
                ),
                io.Int.Input(
                    "phases",
                    default=4,
                    min=1,
                    max=min(FINE_TIMESTEPS.values()),
                    tooltip="Number of phases that the LoRA was trained with: the number in its name. Only for the "
                    "grid training_edges.",
                ),
                shared_inputs.share(
                    "denoise",
                    1.0,
                    "Below 1 the node takes the last steps of a grid of steps / denoise, as KSampler does: 2 "
                    "steps at 0.5 are the last two of four (image to image).",
                ),
                shared_inputs.end("; the official latent is the result times 0.999575 (Latent Multiply)."),
                io.Int.Input(
                    "pcm_timesteps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="SD3 only: the size of the fine grid that the steps are chosen from. PCM uses 50 in its "
                    "test code and 100 in training.",
                ),
            ],
            outputs=[io.Sigmas.Output()],
            **node_text.shows_text(),
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        steps: int,
        grid: Grid,
        phases: int,
        denoise: float,
        end: End,
        pcm_timesteps: int,
    ) -> io.NodeOutput:
        inputs = pcm_text.Inputs(steps, grid, phases, denoise, end, pcm_timesteps)
        shared_inputs.check_ranges(cls, **inputs._asdict())
        check_takes_phases(model)
        sampling = model.get_model_object("model_sampling")
        if isinstance(sampling, stock.ModelSamplingDiscreteFlow):
            sigmas = flow_sigmas(sampling, steps, denoise, pcm_timesteps)
            text = pcm_text.of_flow(model, sampling, sigmas, steps, denoise)
        else:
            family = layout_of(model).family
            fine = FINE_TIMESTEPS.get(family, OTHER_FINE_TIMESTEPS)
            T = table_timesteps(steps, grid, phases, fine, denoise)
            sigmas = table_sigmas(sampling, T, end)
            text = pcm_text.of_table(model, family, sampling, T, sigmas, inputs)
        return io.NodeOutput(sigmas, ui=node_text.show(cls, text))


def check_takes_phases(model: ModelPatcher) -> None:
    """Raises ValueError for a model whose sampling has no place for PCM's steps."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, PeRFlowSampling):
        raise _not_for("PeRFlow's sampling", "use Window Schedule for it")
    if isinstance(sampling, RectifiedFlowSampling):
        raise _not_for("InstaFlow's sampling", "use a plain KSampler for it, without a schedule")
    table = isinstance(sampling, stock.ModelSamplingDiscrete) and sampling.num_timesteps == NUM_TIMESTEPS
    if not (table or isinstance(sampling, stock.ModelSamplingDiscreteFlow)):
        kind = f"a {type(model.model).__name__} model (sampling {bases_of(sampling)})"
        raise _not_for(kind, "there is no PCM LoRA for this one")


def _not_for(found: str, remedy: str) -> ValueError:
    return ValueError(
        f"Phase Schedule (PCM) got {found}, expected an SD1.5, SDXL or SD3 model with a PCM LoRA: {remedy}."
    )


def table_timesteps(steps: int, grid: Grid, phases: int, fine: int, denoise: float) -> Timesteps:
    """Entries of the noise table, falling."""
    grids: dict[Grid, Callable[[int], Timesteps]] = {
        "trailing": phased.trailing,
        "training_edges": partial(phased.training_edges, phases=phases, fine=fine),
        "tcd": phased.tcd,
    }
    return last_steps(grids[grid], steps, denoise)


def table_sigmas(sampling: Any, T: Timesteps, end: End) -> Tensor:
    """The model's own levels at T, then the end; shape [len(T) + 1], or [0] without a step.

    Through the model's sigma(), so that the distilled table that ModelSamplingDiscrete sets for lcm is read right. That
    table has no level near the data, so the reference end is the stock table's only.
    """
    if len(T) == 0:
        return torch.zeros(0)
    last = torch.zeros(1)
    if end == "reference" and not is_distilled(sampling.sigmas):
        last = sampling.sigma(torch.zeros(1))
    return torch.cat([sampling.sigma(torch.from_numpy(T)), last]).float()


def flow_sigmas(sampling: Any, steps: int, denoise: float, pcm_timesteps: int) -> Tensor:
    """SD3's levels, shifted as the model's are, then 0; shape [n + 1], or [0] without a step."""
    levels = last_steps(partial(phased.flow_levels, pcm_timesteps=pcm_timesteps), steps, denoise)
    if len(levels) == 0:
        return torch.zeros(0)
    return torch.cat([sampling.sigma(torch.from_numpy(levels) * sampling.multiplier), torch.zeros(1)]).float()
