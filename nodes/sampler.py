"""PeRFlow Sampler: the piecewise solvers as SAMPLER."""

from typing import Any

from comfy.samplers import KSAMPLER
from comfy_api.latest import io
from torch import Tensor
from tqdm.auto import tqdm

from ..perflow_core.solvers import SOLVERS, Callback
from .comfyui import shared_inputs
from .comfyui.chord_sampling import PeRFlowSampling


class PeRFlowSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowSampler",
            display_name="PeRFlow Sampler",
            category="PeRFlow",
            description="A solver for the custom sampling nodes. No step crosses a window edge, where the path bends.",
            search_aliases=["perflow", "few step", "4 step", "euler", "heun", "piecewise"],
            inputs=[
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="euler",
                    tooltip="euler: as in the official scheduler. heun: second order, two model calls per step. ab2: "
                    "second order without extra calls, because it uses the step before; the same as euler where every "
                    "window has one step.",
                ),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        shared_inputs.check_ranges(cls, solver=solver)
        return io.NodeOutput(KSAMPLER(sample, {"solver": solver}))


def sample(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    *,
    solver: str,
) -> Tensor:
    """k-diffusion's signature. The windows are the model's; a model without them gets the ordinary solver."""
    sampling = model.inner_model.inner_model.model_sampling
    chord = sampling.chord if isinstance(sampling, PeRFlowSampling) else None
    with tqdm(total=len(sigmas) - 1, disable=disable) as bar:

        def report(state: dict[str, Any]) -> None:
            if callback is not None:
                callback(state)
            bar.update(state["i"] + 1 - bar.n)

        return SOLVERS[solver](model, x, sigmas, extra_args, report, disable, chord=chord)
