"""How the base of a MODEL samples: the noise table that windows are made from, and what its UNet predicts."""

import comfy.model_sampling as stock
from comfy.model_patcher import ModelPatcher

from ....perflow_core.host import host_float64
from ....perflow_core.sampling.noise_tables import is_stable_diffusion, stable_diffusion_sigmas
from ....perflow_core.sampling.parameterization import BasePrediction, PredictionType, usual_base
from ....perflow_core.training.base import Base, FlowBase
from .flow_windows import flow_base
from .perflow_sampling import PeRFlowSampling


def prediction_of(model: ModelPatcher) -> BasePrediction | None:
    """What the network predicts; None where that is neither noise, v nor the velocity of a flow."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, PeRFlowSampling):
        return sampling.base.predicts
    if flow_base(sampling):
        return "flow"
    if isinstance(sampling, stock.EDM | stock.X0) or not isinstance(sampling, stock.EPS):
        return None
    return "v" if isinstance(sampling, stock.V_PREDICTION) else "noise"


def bases_of(sampling: object) -> str:
    """The classes that ComfyUI made a model sampling of, for messages: "ModelSamplingDiscrete + EPS"."""
    return " + ".join(base.__name__ for base in type(sampling).__bases__)


def base_of(model: ModelPatcher) -> Base | FlowBase:
    """The base of a MODEL, a Stable Diffusion or a flow model, below PeRFlow's sampling where it has that.

    Read through the patcher: the module itself may hold another clone's patch while it is loaded. Raises ValueError for
    a model that samples otherwise, which its sampling's numbers show.
    """
    return flow_base(model.get_model_object("model_sampling")) or stable_diffusion_base(model)


def stable_diffusion_base(model: ModelPatcher) -> Base:
    """Raises ValueError for a model that is not sampled as Stable Diffusion is."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, PeRFlowSampling):
        return sampling.base
    predicts = prediction_of(model)
    kind = f"{type(model.model).__name__}, sampling {bases_of(sampling)}"
    if predicts is None or not isinstance(sampling, stock.ModelSamplingDiscrete):
        raise ValueError(
            f"This model ({kind}) samples neither as Stable Diffusion does (a noise table of 1000 steps, noise or v) "
            "nor as flow models do (straight from noise to data), expected an SD1.5, SD2.x, SDXL or flow-matching "
            "model: load one of those, without another model sampling node before this one."
        )
    if not is_stable_diffusion(sampling.sigmas):
        own = "v_prediction" if predicts == "v" else "eps"
        raise ValueError(
            f"This model ({kind}) has another noise table ({len(sampling.sigmas)} levels up to sigma "
            f"{float(sampling.sigma_max):.4g}), expected Stable Diffusion's (1000 up to "
            f"{float(stable_diffusion_sigmas()[-1]):.4g}): take away the model sampling node before this one, or, if "
            f"the checkpoint itself has zero terminal SNR, put ModelSamplingDiscrete with {own} and zsnr off before "
            "this node."
        )
    return Base(1 / (1 + host_float64(sampling.sigmas) ** 2), predicts)


def other_base_lines(base: Base, trained_on: BasePrediction) -> list[str]:
    """What to expect where the weights are a change of a model that predicts something else; no line where not."""
    if base.predicts == trained_on:
        return []
    return [
        f"This model predicts {base.predicts}, but the PeRFlow weights were made for models that predict {trained_on}: "
        f"expect noise or wrong colours. Use a model that predicts {trained_on}, or train a delta of this model."
    ]


def other_prediction_lines(base: Base, prediction_type: PredictionType) -> list[str]:
    """What to try where auto chose for a model that predicts something else than the published weights' base."""
    if base.predicts == usual_base(prediction_type):
        return []
    return [
        f"This model predicts {base.predicts}, and auto chose {prediction_type}, as in the published weights: if the "
        "picture is noise or has wrong colours, choose the prediction type that its weights were trained with."
    ]
