"""Model Sampling InstaFlow: the sampling of rectified flow and rectified diffusion UNets."""

from typing import Literal

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .comfyui import node_text, shared_inputs
from .comfyui.sampling.base_sampling import stable_diffusion_base
from .comfyui.sampling.perflow_sampling import PeRFlowSampling
from .comfyui.sampling.rectified_sampling import EvenSteps, RectifiedDiffusionSampling, RectifiedFlowSampling
from .comfyui.sampling.step_alignment import set_alignment
from .comfyui.weights.unet_weights import layout_of

Family = Literal["rectified_flow", "rectified_diffusion"]
FAMILIES = {"rectified_flow": RectifiedFlowSampling, "rectified_diffusion": RectifiedDiffusionSampling}
TEXTS = {
    "rectified_flow": "Rectified flow: the UNet gets the timesteps 1000 (1 - i / steps). Use the sampler euler.\n"
    "InstaFlow: 1 step, CFG 1. 2-Rectified-Flow: 2 to 25 steps, CFG 1 to 2.",
    "rectified_diffusion": "Rectified diffusion: the UNet predicts noise, betas are linear, sigma goes from 25.15 to "
    "0.029. Use the sampler euler.\n"
    "rd: 1, 2, 4, 8, 16 or 25 steps, CFG 1.5. cm: 1 or 2 steps, CFG 1.",
}


class InstaFlowModelSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InstaFlowModelSampling",
            display_name="Model Sampling InstaFlow",
            category="PeRFlow",
            description="Sets the sampling of InstaFlow (one step), 2-Rectified-Flow and Rectified Diffusion on their "
            "UNets. Then a plain KSampler with euler takes the right steps. LoRAs, ControlNet and merges keep working.",
            search_aliases=["instaflow", "2-rectified flow", "rectified flow", "rectified diffusion", "reflow"]
            + ["one step", "few step", "1 step", "accelerate"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The UNet of InstaFlow, 2-Rectified-Flow or Rectified Diffusion, from Load Diffusion "
                    "Model. All of them have SD1.5's layout. LoRAs and merges may come before or after this node.",
                ),
                io.Combo.Input(
                    "family",
                    options=list(FAMILIES),
                    default="rectified_flow",
                    tooltip="rectified_flow: for InstaFlow and 2-Rectified-Flow. rectified_diffusion: for rd and cm of "
                    "Rectified Diffusion, which predict noise. The phased files of Rectified Diffusion need no node.",
                ),
                shared_inputs.align_steps("Space the steps of any scheduler evenly"),
            ],
            outputs=[io.Model.Output()],
            **node_text.shows_text(),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, family: Family, align_steps: bool) -> io.NodeOutput:
        shared_inputs.check_ranges(cls, family=family)
        check_is_rectified(model)
        rectified = model.clone()
        rectified.add_object_patch("model_sampling", FAMILIES[family](model.model.model_config))
        set_alignment(rectified, align_steps)
        text = TEXTS[family]
        if not align_steps:
            text += "\nalign_steps is off: only the scheduler simple has even steps."
        return io.NodeOutput(rectified, ui=node_text.show_with_steps(cls, text, rectified))


def check_is_rectified(model: ModelPatcher) -> None:
    """Raises ValueError for a model that is not of SD1.5's layout, or that a node before has another sampling from."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, PeRFlowSampling):
        raise ValueError(
            "Model Sampling InstaFlow got a model with PeRFlow's sampling, expected an InstaFlow, 2-Rectified-Flow or "
            "Rectified Diffusion UNet: connect its loader, without a PeRFlow node between."
        )
    found = layout_of(model).family
    if found != "SD1.5":
        raise ValueError(
            f"Model Sampling InstaFlow got a {type(model.model).__name__} model ({found}), expected the SD1.5 layout "
            "of InstaFlow, 2-Rectified-Flow and Rectified Diffusion: load one of their UNets with Load Diffusion Model."
        )
    if not isinstance(sampling, EvenSteps):  # ours replaces its own, but no other node's
        stable_diffusion_base(model)
