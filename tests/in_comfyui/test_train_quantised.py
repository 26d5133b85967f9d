"""Train PeRFlow Delta on checkpoints with quantised layers: every layer learns, through right gradients."""

import pytest
import torch
from node_training import examples_for, pictures, prompts, train_on, training_on
from quantised_files import FORMATS, in_format, is_known
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module", params=FORMATS)
def model(request, comfyui, unet_file):
    """The small UNet with its linear layers quantised, loaded as the executor does: in inference mode."""
    import comfy.sd

    if not is_known(request.param):
        pytest.skip(f"This ComfyUI does not know {FORMATS[request.param].name}.")
    path = unet_file.with_name(f"to-train-{request.param}.safetensors")
    save_file(in_format(load_file(unet_file), request.param), path)
    with torch.inference_mode():
        return comfy.sd.load_diffusion_model(str(path))


@pytest.fixture(scope="module")
def trained(comfyui, model):
    """(the file, the weights before) of two steps."""
    before = multiplied_out(model)
    with torch.inference_mode():
        return train_on(comfyui, model, steps=2)[0], before


def quantised_layers(model):
    from comfy.quant_ops import QuantizedTensor

    named = model.model.diffusion_model.named_modules()
    return {name: layer for name, layer in named if isinstance(getattr(layer, "weight", None), QuantizedTensor)}


def multiplied_out(model):
    return {name: layer.weight.dequantize().clone() for name, layer in quantised_layers(model).items()}


def test_every_layer_is_trained(model, unet_file, trained):
    """As many adapters as the plain model has matrices and convolutions, all of them moved, attention among them."""
    path, before = trained
    tensors = load_file(path)
    layers = {name.removesuffix(".weight") for name, weight in load_file(unet_file).items() if weight.ndim > 1}
    ups = {name.removesuffix(".lora_up.weight") for name in tensors if name.endswith(".lora_up.weight")}
    assert ups == {f"diffusion_model.{layer}" for layer in layers}
    assert all(tensors[f"{layer}.lora_up.weight"].any() for layer in ups)
    assert len(quantised_layers(model)) > 20
    assert quantised_layers(model).keys() <= layers
    assert {"attn1.to_q", "attn2.to_v", "ff.net.2"} <= {name.split("blocks.0.")[-1] for name in quantised_layers(model)}
    after = multiplied_out(model)
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())


def test_the_file_fits_the_quantised_model(model, trained, apply_delta):
    accelerated = apply_delta(model, delta_name=trained[0].name)
    ups = [name for name in load_file(trained[0]) if name.endswith(".lora_up.weight")]
    assert len(accelerated.patches) == len(ups)


def test_the_gradient_through_a_quantised_layer(comfyui, model):
    """It is the gradient through the multiplied-out weight, to float32's rounding, for inputs of training's shape."""
    training = training_on(comfyui, model)
    with torch.inference_mode(False), torch.enable_grad(), training.unet.loaded():
        for name, layer in quantised_layers(training.unet.patcher).items():
            weight = layer.weight.dequantize().float()
            x = torch.randn(2, 3, weight.shape[1], generator=torch.Generator().manual_seed(1), requires_grad=True)
            back = torch.randn(2, 3, weight.shape[0], generator=torch.Generator().manual_seed(2))
            layer(x).backward(back)
            assert torch.allclose(x.grad, back @ weight, rtol=1e-4, atol=1e-4 * float((back @ weight).abs().max())), (
                name
            )
            bias = 0 if layer.bias is None else layer.bias.float()
            expected = x.detach() @ weight.T + bias
            assert torch.allclose(layer(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())), name


def test_sampling_is_as_before(comfyui, model, trained):
    """Nothing of the training stays on the layers: they multiply packed numbers again where they can."""
    import comfy.model_management

    examples = examples_for(comfyui, model, prompts(0.1))
    comfy.model_management.load_models_gpu([model])
    assert not any(layer.weight_function for layer in quantised_layers(model).values())
    ((_, conditions),) = examples.conditions([0, 1], [False, False], torch.device("cpu"))
    with torch.inference_mode():
        m = model.model.apply_model(pictures()["samples"], torch.tensor([1000.0, 437.0]), **conditions)
    assert m.isfinite().all()
