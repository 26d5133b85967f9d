"""Window Schedule: the official PeRFlow steps as SIGMAS."""

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..perflow_core.errors import counted
from ..perflow_core.sampling.chord import WindowChord
from ..perflow_core.sampling.schedule import End, parse_steps_per_window, window_schedule
from ..perflow_core.sampling.solvers import split_at_edges
from ..perflow_core.sampling.windows import NUM_TIMESTEPS
from .comfyui import node_text, shared_inputs
from .comfyui.sampling.perflow_model import window_steps


class PeRFlowWindowSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowWindowSchedule",
            display_name="Window Schedule",
            category="PeRFlow",
            description="Gives the steps of the official PeRFlow scheduler and shows them on the node, window by "
            "window.",
            search_aliases=["scheduler", "sigmas", "time windows"],
            inputs=[
                io.Model.Input("model", tooltip="A model from Apply PeRFlow Delta or Model Sampling PeRFlow."),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip="Number of steps. The windows share them; the noisiest windows get the extra ones. 4 to 8 "
                    "are usual; fewer steps than windows also work, at lower quality.",
                ),
                shared_inputs.share(
                    "denoise",
                    1.0,
                    "Where the path starts, as a share of the whole time: 1 is pure noise, 0.5 is halfway "
                    "(image to image). The windows that are left share the steps.",
                ),
                shared_inputs.end(", to compare with it."),
                io.String.Input(
                    "steps_per_window",
                    default="",
                    advanced=True,
                    tooltip='Replaces steps: the number of steps of each window, noisiest first, such as "2,1,1,1". '
                    "The step before a window with 0 goes across it.",
                ),
            ],
            outputs=[io.Sigmas.Output()],
            **node_text.shows_text(),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, steps: int, denoise: float, end: End, steps_per_window: str) -> io.NodeOutput:
        shared_inputs.check_ranges(cls, steps=steps, denoise=denoise, end=end)
        chord = window_steps(model, "Window Schedule").chord
        counts = parse_steps_per_window(steps_per_window)
        sigmas = window_schedule(chord, steps, denoise, end, counts).float()
        text = steps_text(chord, sigmas)
        if counts is not None:
            text += f"\nsteps_per_window is used, steps ({steps}) is not."
        return io.NodeOutput(sigmas, ui=node_text.show(cls, text))


def steps_text(chord: WindowChord, sigmas: torch.Tensor) -> str:
    """The timesteps by window, and in words what they mean where that is not the usual."""
    if len(sigmas) == 0:
        if chord.windows.span[1] > 0:
            return (
                f"No steps: this model's part of the path ends at sigma {chord.own_edges[-1]:.4g}, above denoise. The "
                "other model makes the whole picture, and its sampler adds the noise."
            )
        return "No steps: with denoise 0 the latent stays as it is."
    T = chord.path_timesteps(sigmas[:-1])
    text = chord.by_window(T)
    steps, t_e = len(T), chord.windows.span[1]
    windows = len(chord.windows.spanned(T[0] / NUM_TIMESTEPS, t_e)) - 1
    if t_e > 0:
        text += f"\nThe last step ends at sigma {chord.own_edges[-1]:.4g}, where another model goes on."
    calls = len(split_at_edges(sigmas, chord).sigmas) - 1
    if calls > steps:
        text += (
            f"\n{counted(steps, 'step')} for {windows} windows: a step crosses a bend of the path, so "
            f"the picture is rougher. PeRFlow Sampler divides such steps at the bends ({calls} model calls)."
        )
    return text
