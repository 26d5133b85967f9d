"""The noise table of a MODEL's base, from which PeRFlow's windows are made."""

import comfy.model_sampling as stock
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...perflow_core.host import host_float64
from ...perflow_core.windows import NUM_TIMESTEPS
from .chord_sampling import PeRFlowSampling
from .rectified_sampling import RectifiedDiffusionSampling


def base_alphas_cumprod(model: ModelPatcher) -> Tensor:
    """The 1000 cumulative alphas of the model's own noise table, float64.

    Read through the patcher: the module itself may hold another clone's patch while it is loaded. Raises ValueError for
    a model that is not Stable Diffusion.
    """
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, PeRFlowSampling):
        return sampling.alphas_cumprod
    others = stock.EDM | stock.X0 | RectifiedDiffusionSampling
    predicts_noise = isinstance(sampling, stock.EPS) and not isinstance(sampling, others)
    discrete = isinstance(sampling, stock.ModelSamplingDiscrete)
    if not (predicts_noise and discrete and len(sampling.sigmas) == NUM_TIMESTEPS):
        bases = " + ".join(base.__name__ for base in type(sampling).__bases__)
        raise ValueError(
            f"This model ({type(model.model).__name__}, sampling {bases}) does not have the {NUM_TIMESTEPS}-step noise "
            "table of Stable Diffusion, expected an SD1.5, SD2.x or SDXL model: load one of those, without another "
            "model sampling node before this one."
        )
    return 1 / (1 + host_float64(sampling.sigmas) ** 2)
