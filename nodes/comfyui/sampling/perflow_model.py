"""MODELs with PeRFlow's sampling: set it on one, or take it from one."""

from comfy.model_patcher import ModelPatcher

from ....perflow_core.sampling.parameterization import PREDICTION_TYPES, PredictionType
from ....perflow_core.weights.unet_layout import TRAINED_PREDICTION, UNetLayout
from .perflow_sampling import Base, PeRFlowSampling
from .step_alignment import set_alignment


def with_perflow_sampling(
    model: ModelPatcher, base: Base, prediction_type: PredictionType, windows: int, align_steps: bool
) -> ModelPatcher:
    """A clone that samples along the window chord of its base's noise table."""
    accelerated = model.clone()
    sampling = PeRFlowSampling(model.model.model_config, base, prediction_type, windows)
    accelerated.add_object_patch("model_sampling", sampling)
    set_alignment(accelerated, align_steps)
    return accelerated


def trained_prediction(model: ModelPatcher, unet: UNetLayout) -> PredictionType:
    """What "auto" means for a model: the parameterization PeRFlow's authors trained for its architecture."""
    if unet.family not in TRAINED_PREDICTION:
        raise ValueError(
            f"No PeRFlow weights are known for this model ({type(model.model).__name__}), so auto cannot choose, "
            f"expected SD1.5, SD2.x or SDXL: choose one of {', '.join(PREDICTION_TYPES)}."
        )
    return TRAINED_PREDICTION[unet.family]


def perflow_sampling(model: ModelPatcher, node: str) -> PeRFlowSampling:
    """The PeRFlow sampling of a MODEL. Raises ValueError, naming the node, where there is none."""
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, PeRFlowSampling):
        raise ValueError(
            f"{node} got a model without time windows ({type(model.model).__name__}), expected a PeRFlow model: "
            "connect Apply PeRFlow Delta or Model Sampling PeRFlow before it."
        )
    return sampling
