"""The layouts of the published files in their full sizes, without weights: what the small models are made after.

Small UNets have ComfyUI's names, since ComfyUI reads those with diffusers' names in the full sizes only.
"""

import pytest
import torch

FULL = dict(channel_mult=[1, 2, 4, 4], num_res_blocks=[2] * 4, transformer_depth=[1] * 6 + [0] * 2)
FULL |= dict(transformer_depth_output=[1] * 9 + [0] * 3)
FULL_SDXL = dict(channel_mult=[1, 2, 4], transformer_depth_output=[0] * 3 + [2] * 3 + [10] * 3)
FULL_SDXL |= dict(transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_middle=10)

# the small preset -> what makes it full, ComfyUI's class, cross-attention layers, layers of a LoRA of PCM
LAYOUTS = {
    "SD15_SMALL": (FULL, "SD15", 16, 278),
    "SD21_SMALL": (FULL, "SD20", 16, 278),
    "SDXL_SMALL": (FULL_SDXL, "SDXL", 70, 788),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, comfyui):
    """(UNet with diffusers' names and no memory, ComfyUI's class, cross-attention layers, layers of a LoRA of PCM)"""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from trial import small_models
    from trial.small_models.random_tensors import shapes_of
    from trial.small_models.unets import diffusers_names

    full, *numbers = LAYOUTS[request.param]
    config = getattr(small_models, request.param) | full
    shapes = shapes_of(lambda: UNetModel(**config))
    unet = {name: torch.empty(shape, device="meta", dtype=torch.float16) for name, shape in shapes.items()}
    names = diffusers_names(unet)
    return {names[name]: tensor for name, tensor in unet.items()}, *numbers


def test_published_unets_are_recognised(layout):
    from comfy.model_detection import model_config_from_diffusers_unet
    from comfy.utils import unet_to_diffusers

    unet, kind, attentions, _ = layout
    config = model_config_from_diffusers_unet(unet)
    assert type(config).__name__ == kind
    assert unet.keys() <= unet_to_diffusers(config.unet_config).keys()
    assert sum(name.endswith("attn2.to_k.weight") for name in unet) == attentions


def test_the_layers_of_pcm_loras_are_those_of_the_published_ones(core, layout):
    found = core("weights.pcm_loras").LAYERS
    unet, _, _, layers = layout
    modules = (name.removesuffix(".weight").replace(".", "_") for name in unet if name.endswith(".weight"))
    assert sum(bool(found.search(module)) for module in modules) == layers


def test_a_small_ip_adapter_has_the_layers_of_the_published_one(layout, tmp_path):
    from safetensors.torch import load_file
    from trial import small_models

    _, kind, attentions, _ = layout
    if kind == "SD20":
        return  # no IP-Adapter was published for it
    preset = {"SD15": small_models.SD15_TINY, "SDXL": small_models.SDXL_SMALL}[kind]
    file = load_file(str(small_models.make_ip_adapter(tmp_path / "ip.safetensors", preset)))
    numbers = [2 * layer + 1 for layer in range(attentions)]
    layers = {f"ip_adapter.{number}.to_{kind}_ip.weight" for number in numbers for kind in "kv"}
    assert {name for name in file if name.startswith("ip_adapter.")} == layers
