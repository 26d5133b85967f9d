"""LoRA files: names, shapes and metadata that loaders read."""

import torch

from perflow_core.weights.lora_file import delta_metadata, lora_name, lora_of_peft, lora_pair, ranks


def test_a_convolution_has_a_kernel_of_one_in_up():
    tensors = lora_pair("a", torch.ones(6, 2), torch.ones(2, 3, 5, 5))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {"a.lora_up.weight": (6, 2, 1, 1), "a.lora_down.weight": (2, 3, 5, 5), "a.alpha": ()}
    assert tensors["a.alpha"] == 2


def test_of_peft():
    """The UNet's own weights stay out."""
    weights = {
        "mid_block.conv1.base_layer.weight": torch.ones(6, 3),
        "mid_block.conv1.lora_A.default.weight": torch.full((2, 3), 2.0),
        "mid_block.conv1.lora_B.default.weight": torch.full((6, 2), 3.0),
    }
    tensors = lora_of_peft(weights, torch.float16)
    name = lora_name("mid_block.conv1")
    assert name == "lora_unet_mid_block_conv1"
    assert sorted(tensors) == [f"{name}.alpha", f"{name}.lora_down.weight", f"{name}.lora_up.weight"]
    assert tensors[f"{name}.lora_up.weight"].dtype == torch.float16
    assert tensors[f"{name}.lora_up.weight"].unique().tolist() == [3]
    assert ranks(tensors) == [2]


def test_the_rank_in_the_metadata():
    assert [delta_metadata(ranks)["rank"] for ranks in ([], [4, 4], [2, 8])] == ["full", "4", "2-8"]
    assert delta_metadata([], windows="4")["windows"] == "4"
