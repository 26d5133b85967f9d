"""Apply PeRFlow Delta: dW from a file onto a MODEL, and the sampling that goes with it."""

from pathlib import Path

import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..perflow_core.architecture import TRAINED_WINDOWS
from ..perflow_core.delta import Delta, DeltaError, read_delta
from . import folders, node_text, shared_inputs
from .accelerate import base_alphas_cumprod, trained_prediction, unet_shapes, with_perflow_sampling


class PeRFlowApplyDelta(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowApplyDelta",
            display_name="Apply PeRFlow Delta",
            category="PeRFlow",
            description="Makes a Stable Diffusion model a four-step one: adds the PeRFlow weight difference and "
            "sets the sampling that goes with it. LoRAs, ControlNet, IP-Adapter, CFG and negatives keep working.",
            search_aliases=["perflow", "few step", "4 step", "accelerate", "fast", "rectified flow", "turbo"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5, SD2.x or SDXL model. LoRAs may come before or after."),
                io.Combo.Input(
                    "delta_name",
                    options=folders.delta_names(),
                    tooltip="A file in models/perflow (.safetensors), made for the same kind of model.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much of the difference is added. 1 is as trained; 0 returns the model as it came.",
                ),
                shared_inputs.prediction_type(auto="what the file says, else "),
                io.Int.Input(
                    "windows",
                    default=0,
                    min=0,
                    max=100,
                    tooltip="Time windows K that the weights were trained with. 0: as the file says, else 4, which all "
                    "published weights use.",
                ),
                shared_inputs.align_steps(),
            ],
            outputs=[io.Model.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        delta_name: str,
        strength: float,
        prediction_type: shared_inputs.PredictionChoice,
        windows: int,
        align_steps: bool,
    ) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(model, ui=node_text.show(cls, "Strength 0: the model as it came."))
        base_alphas_cumprod(model)  # a model of another kind is told so before its file is
        path = folders.delta_path(delta_name)
        delta = load_delta(path, model)
        if prediction_type == shared_inputs.AUTO:
            prediction_type = delta.prediction_type or trained_prediction(model)
        windows = windows or delta.windows or TRAINED_WINDOWS
        accelerated = with_perflow_sampling(model, prediction_type, windows, align_steps)
        accelerated.add_patches({key: ("diff", (tensor,)) for key, tensor in delta.tensors.items()}, strength)
        size = Path(path).stat().st_size / 1e6
        text = (
            f"{delta.architecture}, {len(delta.tensors)} tensors, {size:.0f} MB\n{prediction_type}, {windows} windows"
        )
        return io.NodeOutput(accelerated, ui=node_text.show(cls, text))


def load_delta(path: str, model: ModelPatcher) -> Delta:
    """The delta in a .safetensors file, by the model's names. Raises DeltaError for one that does not fit the model."""
    name = Path(path).name
    try:
        tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except Exception as error:  # safetensors and ComfyUI raise many kinds for a file they cannot read
        reason = " ".join(str(error).split())
        raise DeltaError(f"{name} cannot be read as .safetensors ({reason}): download it again.") from error
    diffusers_names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return read_delta(name, tensors, metadata, unet_shapes(model), diffusers_names)
