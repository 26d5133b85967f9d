"""PeRFlow Sampler: the piecewise solvers as SAMPLER."""

from comfy_api.latest import io

from ..perflow_core.sampling.solvers import SOLVERS
from .comfyui import shared_inputs
from .comfyui.sampling.piecewise_sampler import PiecewiseSampler


class PeRFlowSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowSampler",
            display_name="PeRFlow Sampler",
            category="PeRFlow",
            description="A solver for the custom sampling nodes. No step crosses a window edge, where the path bends.",
            search_aliases=["euler", "heun", "ab2", "piecewise"],
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
        return io.NodeOutput(PiecewiseSampler(solver))
