"""The text of Phase Schedule (PCM): its timesteps, the LoRA files that they fit, and what is unusual about them."""

from typing import Any, NamedTuple

import comfy.model_base
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....perflow_core.errors import counted, listed
from ....perflow_core.sampling.phased import Grid, Timesteps, grid_steps, is_distilled
from ....perflow_core.sampling.schedule import End
from ....perflow_core.sampling.windows import steps_per_window
from ....perflow_core.weights.pcm_loras import (
    FLOW_LORAS,
    FLOW_SHIFTS,
    NORMAL_CFG_STEPS,
    PREFIX,
    SMALL_CFG_STEPS,
    deterministic,
    lcm_like,
)
from .rectified_sampling import RectifiedDiffusionSampling

NO_STEPS = "No steps: with denoise 0 the latent stays as it is."


class Inputs(NamedTuple):
    """The node's inputs."""

    steps: int
    grid: Grid
    phases: int
    denoise: float
    end: End
    pcm_timesteps: int


def of_table(model: ModelPatcher, family: str, sampling: Any, T: Timesteps, sigmas: Tensor, inputs: Inputs) -> str:
    """For a model with a noise table; T are the steps as entries of it, `sigmas` the same as levels with the end."""
    if len(T) == 0:
        return NO_STEPS
    timesteps = sampling.timestep(sigmas[:-1]).tolist()  # as the UNet gets them
    lines = [listed(timesteps), *_too_few(len(T), inputs.steps)]
    if timesteps != T.tolist():
        lines.append(
            f"These are not exactly {listed(T)}: a model set to lcm has only 19, 39, ..., 999. Use the grid tcd."
        )
    if inputs.grid == "training_edges":
        lines += _shared(grid_steps(inputs.steps, inputs.denoise), inputs.phases)
    lines.append(_files(model, family, sampling, inputs))
    return "\n".join([*lines, *_unused(sampling, inputs)])


def _files(model: ModelPatcher, family: str, sampling: Any, inputs: Inputs) -> str:
    """The files that these steps are for."""
    if isinstance(sampling, RectifiedDiffusionSampling):
        text = "For rd (1, 2, 4, 8, 16 or 25 steps, CFG 1.5) and cm (1 or 2 steps, CFG 1), sampler euler."
        if inputs.grid != "trailing":
            text += " They need the grid trailing; Model Sampling InstaFlow restores it unless its align_steps is off."
        return text
    if family not in PREFIX:
        return f"No PCM LoRA is known for this model ({type(model.model).__name__})."
    if is_distilled(sampling.sigmas):
        return f"For {lcm_like(family)}."
    trained = inputs.phases if inputs.grid == "training_edges" else grid_steps(inputs.steps, inputs.denoise)
    text = f"For {' or '.join(deterministic(family, trained))}, sampler euler."
    if not deterministic(family, trained):
        made = f"smallcfg LoRAs are for {_or(SMALL_CFG_STEPS)}, normalcfg LoRAs for {_or(NORMAL_CFG_STEPS)}"
        text = f"No PCM LoRA is made for {counted(trained, 'step')}: {made}."
    if inputs.grid == "tcd":
        text += f"\nOr for {lcm_like(family)}."
    return text


def _unused(sampling: Any, inputs: Inputs) -> list[str]:
    """Inputs that were set and change nothing here, and what to do for an end that is not ComfyUI's."""
    lines = []
    if inputs.end == "reference":
        if is_distilled(sampling.sigmas):
            lines.append("A model set to lcm ignores end reference: it ends at sigma 0, as PCM's sampling code does.")
        elif not isinstance(sampling, RectifiedDiffusionSampling):  # which applies it by itself
            factor = (1 + float(sampling.sigmas[0]) ** 2) ** -0.5
            lines.append(f"The official latent is the result times {factor:.6f} (Latent Multiply).")
    if inputs.grid != "training_edges" and inputs.phases != 4:
        lines.append("This grid ignores phases.")
    if inputs.pcm_timesteps != 50:
        lines.append("Only SD3 uses pcm_timesteps.")
    return lines


def of_flow(model: ModelPatcher, sampling: Any, sigmas: Tensor, steps: int, denoise: float) -> str:
    """For a flow model, SD3's kind; `sigmas` are its steps and the end."""
    if len(sigmas) == 0:
        return NO_STEPS
    lines = [listed(sampling.timestep(sigmas[:-1]).tolist()), *_too_few(len(sigmas) - 1, steps)]
    trained = grid_steps(steps, denoise)
    files = FLOW_LORAS.get((float(sampling.shift), trained), [])
    if not isinstance(model.model, comfy.model_base.SD3):
        lines.append(f"No PCM LoRA is known for this model ({type(model.model).__name__}).")
    elif sampling.shift not in FLOW_SHIFTS:
        lines.append(f"No PCM LoRA has shift {sampling.shift:g}: set 1 or 3 with ModelSamplingSD3.")
    elif files:
        lines.append(f"Shift {sampling.shift:g}. For {', or '.join(files)}; CFG 1.2.")
    else:
        lines.append(f"No PCM LoRA is made for {counted(trained, 'step')} at shift {sampling.shift:g}.")
    lines.append("This model ignores grid, phases and end.")
    return "\n".join(lines)


def _too_few(taken: int, steps: int) -> list[str]:
    return [f"{counted(taken, 'step')} instead of {steps}: the grid has no more points there."] if taken < steps else []


def _shared(steps: int, phases: int) -> list[str]:
    """How the phases share steps that are no multiple of their number."""
    if steps < phases:
        return [f"{counted(steps, 'step')} for {phases} phases: some edges are left out, so the picture is rougher."]
    if steps % phases:
        return [
            f"{steps} steps do not divide by {phases} phases, so the phases get "
            f"{listed(steps_per_window(steps, phases))}."
        ]
    return []


def _or(values: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
