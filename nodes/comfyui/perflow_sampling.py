"""Give a MODEL the PeRFlow sampling: shared by the nodes that load a delta and that take a merged checkpoint."""

import comfy.model_sampling as stock
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...perflow_core.architecture import TRAINED_PREDICTION, UNet
from ...perflow_core.host import host_float64
from ...perflow_core.parameterization import PREDICTION_TYPES, PredictionType
from ...perflow_core.windows import NUM_TIMESTEPS
from .chord_sampling import PeRFlowSampling
from .rectified_sampling import RectifiedDiffusionSampling
from .step_alignment import set_alignment


def with_perflow_sampling(
    model: ModelPatcher, prediction_type: PredictionType, windows: int, align_steps: bool
) -> ModelPatcher:
    """A clone that samples along the window chord. Raises ValueError for a model that is not Stable Diffusion."""
    accelerated = model.clone()
    sampling = PeRFlowSampling(model.model.model_config, base_alphas_cumprod(model), prediction_type, windows)
    accelerated.add_object_patch("model_sampling", sampling)
    set_alignment(accelerated, align_steps)
    return accelerated


def base_alphas_cumprod(model: ModelPatcher) -> Tensor:
    """The 1000 cumulative alphas of the model's own noise table, float64.

    Read through the patcher: the module itself may hold another clone's patch while it is loaded.
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


def trained_prediction(model: ModelPatcher, unet: UNet) -> PredictionType:
    """What "auto" means for a model: the parameterization PeRFlow's authors trained for its architecture."""
    if unet.family not in TRAINED_PREDICTION:
        raise ValueError(
            f"No PeRFlow weights are known for this model ({type(model.model).__name__}), so auto cannot choose, "
            f"expected SD1.5, SD2.x or SDXL: choose one of {', '.join(PREDICTION_TYPES)}."
        )
    return TRAINED_PREDICTION[unet.family]


def perflow_sampling(model: ModelPatcher, node: str) -> PeRFlowSampling:
    """The PeRFlow sampling of a MODEL. Raises ValueError, naming the node that asked, where there is none."""
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, PeRFlowSampling):
        raise ValueError(
            f"{node} got a model without time windows ({type(model.model).__name__}), expected a PeRFlow model: "
            "connect Apply PeRFlow Delta or Model Sampling PeRFlow before it."
        )
    return sampling
