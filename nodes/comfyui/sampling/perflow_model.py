"""MODELs with PeRFlow's sampling: set it on one, or take it from one."""

from collections.abc import Sequence

from comfy.model_patcher import ModelPatcher

from ....perflow_core.sampling.parameterization import PREDICTION_TYPES, PredictionType
from ....perflow_core.training.base import Base, FlowBase
from ....perflow_core.weights.unet_layout import TRAINED_PREDICTION, UNetLayout
from .flow_windows import EDGES
from .perflow_sampling import PeRFlowSampling, WindowSteps
from .step_alignment import set_alignment, steps_of


def with_perflow_sampling(
    model: ModelPatcher, base: Base, prediction_type: PredictionType, windows: int, align_steps: bool
) -> ModelPatcher:
    """A clone that samples along the window chord of its base's noise table."""
    accelerated = model.clone()
    sampling = PeRFlowSampling(model.model.model_config, base, prediction_type, windows)
    accelerated.add_object_patch("model_sampling", sampling)
    set_alignment(accelerated, align_steps)
    return accelerated


def with_flow_windows(model: ModelPatcher, base: FlowBase, edges: Sequence[float], align_steps: bool) -> ModelPatcher:
    """A clone of a flow model with windows; edges: their sigmas. Raises ValueError for numbers that are no edges."""
    accelerated = model.clone()
    base.chord(edges)
    accelerated.set_attachments(EDGES, list(edges))
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


def window_steps(model: ModelPatcher, node: str) -> WindowSteps:
    """The steps of a MODEL with time windows. Raises ValueError, naming the node, where there are none."""
    steps = steps_of(model)
    if not isinstance(steps, WindowSteps):
        raise ValueError(
            f"{node} got a model without time windows ({type(model.model).__name__}), expected a PeRFlow model: "
            "connect Apply PeRFlow Delta or Model Sampling PeRFlow before it."
        )
    return steps
