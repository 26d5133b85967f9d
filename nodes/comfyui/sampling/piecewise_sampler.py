"""The SAMPLER of PeRFlow Sampler: the core's solvers, on the windows of the model that is sampled."""

from typing import Any

from comfy.samplers import KSAMPLER
from torch import Tensor
from tqdm.auto import tqdm

from ....perflow_core.sampling.solvers import SOLVERS, Callback
from .flow_windows import flow_windows
from .perflow_sampling import PeRFlowSampling


class PiecewiseSampler(KSAMPLER):
    """It divides steps at window edges, so that none crosses one."""

    def __init__(self, solver: str):
        """solver: one of `SOLVERS`."""
        super().__init__(sample, {"solver": solver})


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
    network = model.inner_model.inner_model
    sampling = network.model_sampling
    steps = sampling if isinstance(sampling, PeRFlowSampling) else flow_windows(network.current_patcher)
    chord = steps.chord if steps else None
    with tqdm(total=len(sigmas) - 1, disable=disable) as bar:

        def report(state: dict[str, Any]) -> None:
            if callback is not None:
                callback(state)
            bar.update(state["i"] + 1 - bar.n)

        return SOLVERS[solver](model, x, sigmas, extra_args, report, chord=chord)
